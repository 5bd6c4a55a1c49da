// SPDX-License-Identifier: GPL-2.0-only
/*
 * util.c - what the library's suites need of the test framework, and their main(): the suite, or
 * one job of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <criterion/options.h>
#include "util.h"

#define JOB_ENV "NOLOCK_TEST_JOB"

static struct job *jobs;
static bool in_job;

void expect_whole(struct nolock_heap *heap, struct nolock_heap_report *rep, const char *when)
{
	int bad = check_whole(heap, rep, when);

	if (in_job) {
		if (bad)
			_exit(1);
	} else {
		cr_assert_eq(bad, 0, "the heap is not whole %s", when);
	}
}

void job_register(struct job *job)
{
	job->next = jobs;
	jobs = job;
}

int job_run(const char *name, const char *env, const char *value)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int status = -1;
	pid_t pid;

	if (n <= 0)
		return -1;
	exe[n] = 0;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		die_with_parent();
		/* BXFI_MAP is how the test framework tells a test's process what to run. */
		unsetenv("BXFI_MAP");
		setenv(JOB_ENV, name, 1);
		setenv(env, value, 1);
		execl(exe, exe, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

static int job_main(const char *name)
{
	struct job *job;

	for (job = jobs; job; job = job->next)
		if (strcmp(job->name, name) == 0)
			break;
	if (!job) {
		fprintf(stderr, "%s=%s: no such job in this binary\n", JOB_ENV, name);
		return 2;
	}
	in_job = true;
	return job->fn();
}

int main(int argc, char **argv)
{
	const char *job = getenv(JOB_ENV);
	struct criterion_test_set *tests;
	int failed = 0;

	if (job)
		return job_main(job);
	tests = criterion_initialize();
	/* One at a time, unless the command line says otherwise: storms want the CPUs. */
	criterion_options.jobs = 1;
	if (criterion_handle_args(argc, argv, true))
		failed = !criterion_run_all_tests(tests);
	criterion_finalize(tests);
	return failed;
}
