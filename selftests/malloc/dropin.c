// SPDX-License-Identifier: GPL-2.0-only
/* dropin.c - main() of the drop-in's suites: the suite, or with the library preloaded one body. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <criterion/options.h>
#include "dropin.h"

#define JOB_ENV "NOLOCK_TEST_JOB"

struct dropin_api dropin;
static struct dropin_job *jobs;

void dropin_register(struct dropin_job *job)
{
	job->next = jobs;
	jobs = job;
}

/* build/selftests/malloc/test_x, seen from which it is ../../lib. */
const char *dropin_path(void)
{
	static char path[PATH_MAX + 64];
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return "";
	self[n] = 0;
	slash = strrchr(self, '/');
	if (slash)
		*slash = 0;
	snprintf(path, sizeof(path), "%s/../../lib/libnolock-malloc.so", self);
	return path;
}

static _Noreturn void become(const char *name, const char *env)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* BXFI_MAP is how the test framework tells a test's process what to run. */
	unsetenv("BXFI_MAP");
	setenv(JOB_ENV, name, 1);
	setenv("LD_PRELOAD", dropin_path(), 1);
	if (env)
		putenv(strdup(env));
	execl("/proc/self/exe", "job", (char *)NULL);
	_exit(127);
}

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

int dropin_run(const char *name, const char *env)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		become(name, env);
	return pid < 0 ? -1 : wait_for(pid);
}

int dropin_run_stderr(const char *name, const char *env, char *text, size_t size)
{
	size_t len = 0;
	int fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe(fds))
		return -1;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		become(name, env);
	}
	close(fds[1]);
	while (pid > 0 && (n = read(fds[0], text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fds[0]);
	return pid < 0 ? -1 : wait_for(pid);
}

void dropin_expect(const char *name, const char *env)
{
	int status = dropin_run(name, env);

	if (WIFSIGNALED(status))
		cr_assert_fail("%s %s: killed by signal %d", name, env ? env : "",
			       WTERMSIG(status));
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %s: exit status %d", name,
		  env ? env : "", WEXITSTATUS(status));
}

void dropin_whole(void)
{
	struct nolock_heap_report r;
	int err = dropin.heap_check(dropin.heap_default(), &r);

	CHECK(!err && !r.errors && !r.locks_held, "%s, %lu errors, %lu locks held, first: %s",
	      strerror(-err), r.errors, r.locks_held, r.first_error);
}

static int job_main(const char *name)
{
	struct dropin_job *job = jobs;
	Dl_info info;

	while (job && strcmp(job->name, name) != 0)
		job = job->next;
	if (!job) {
		fprintf(stderr, "%s=%s: no such body in this binary\n", JOB_ENV, name);
		return 2;
	}
	/* Without it every test would be one of glibc's malloc. */
	CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) &&
		      strstr(info.dli_fname, "libnolock-malloc.so"),
	      "malloc is not the drop-in's: LD_PRELOAD=%s", dropin_path());
	*(void **)&dropin.heap_default = dlsym(RTLD_DEFAULT, "nolock_heap_default");
	*(void **)&dropin.heap_of = dlsym(RTLD_DEFAULT, "nolock_heap_of");
	*(void **)&dropin.heap_check = dlsym(RTLD_DEFAULT, "nolock_heap_check");
	CHECK(dropin.heap_default && dropin.heap_of && dropin.heap_check, "libnolock's functions");
	job->fn();
	return 0;
}

int main(int argc, char **argv)
{
	const char *job = getenv(JOB_ENV);
	struct criterion_test_set *tests;
	int failed = 0;

	if (job)
		return job_main(job);
	tests = criterion_initialize();
	criterion_options.jobs = 1;
	if (criterion_handle_args(argc, argv, true))
		failed = !criterion_run_all_tests(tests);
	criterion_finalize(tests);
	return failed;
}
