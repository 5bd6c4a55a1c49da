// SPDX-License-Identifier: GPL-2.0-only
/*
 * nolockd.c - the daemon: options, the order in which things start and stop.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "heaps.h"
#include "loop.h"
#include "proto.h"
#include "say.h"
#include "server.h"
#include "tracing.h"

/* Exit statuses beside 0; wrong arguments are argp's and ours. */
#define EXIT_NOTHING 1
#define EXIT_ARGUMENTS 2
#define EXIT_PART 3

#define TICK_MS 100
#define MAX_HEAPS 32

const char *argp_program_version = "nolockd " NOLOCK_VERSION;

static const char doc[] =
	"nolockd owns shared heaps of nolock: it makes them or adopts those of an earlier nolockd, "
	"keeps memory ahead of demand, takes back what dead clients held, and traces slab events "
	"of the kernel and of programs that use libnolock."
	"\v"
	"USAGE\n"
	"  A SIZE is a number with K, M or G behind it. A heap's SIZE is 256M by default, at most "
	"4G; POPULATE of it (by default a sixteenth) is made present and set aside for callers "
	"that may not wait. With the right to use BPF (root, or CAP_BPF and CAP_PERFMON) a heap is "
	"a bpf_arena pinned at /sys/fs/bpf/nolock/NAME: it stays when nolockd ends, and the next "
	"nolockd adopts it. Without, it is a sealed memfd that lives as long as nolockd or a "
	"client.\n"
	"  The first SIGINT or SIGTERM stops nolockd; clients keep their heaps. The second SIGINT "
	"kills it.\n"
	"\n"
	"EXAMPLES\n"
	"  nolockd --heap=demo                  a heap of 256 MiB, root's alone\n"
	"  nolockd --heap=a:1G:64M --heap=b     two heaps\n"
	"  nolockd --heap=demo --group=prof --mode=660\n"
	"                                       for the members of group prof, too\n"
	"  nolockd --usdt=/usr/lib/libnolock.so no heap: trace only\n"
	"\n"
	"EXIT STATUS\n"
	"  0    all that was asked for was done, until nolockd was stopped\n"
	"  1    it could not start: also when there is no heap to serve and the kernel lets nothing be "
	"traced; or it could not go on\n"
	"  2    wrong arguments\n"
	"  3    it served, but without part of what was asked for: tracing, because the kernel has no "
	"BTF or nolockd no right to use BPF, or a file of --usdt without probes. One line at the start "
	"says so; --no-trace asks for less\n"
	"  With --daemon it is the status of nolockd as it goes to the background.\n"
	"\n"
	"FILES\n"
	"  " NL_SOCKET_PATH "    the socket (NOLOCK_SOCKET or --socket changes it)\n";

enum {
	OPT_DESTROY = 0x100,
	OPT_REFORMAT,
	OPT_WATERMARK,
	OPT_OWNER,
	OPT_GROUP,
	OPT_MODE,
	OPT_NO_TRACE,
	OPT_NESTED,
	OPT_USDT,
	OPT_RING,
	OPT_PIDFILE,
	OPT_DAEMON,
	OPT_FOREGROUND,
	OPT_CHECK,
};

static const struct argp_option options[] = {
	{ NULL, 0, NULL, 0, "Heaps:", 1 },
	{ "heap", 'H', "NAME[:SIZE[:POPULATE]]", 0, "Serve this heap (may be repeated)", 1 },
	{ "low-watermark", OPT_WATERMARK, "SIZE", 0,
	  "Keep so much free memory in each size class (64K)", 1 },
	{ "reformat", OPT_REFORMAT, "NAME", 0,
	  "Make this heap anew, whatever is pinned under its name", 1 },
	{ "destroy-on-exit", OPT_DESTROY, NULL, 0, "Remove the pins of all heaps at the end", 1 },

	{ NULL, 0, NULL, 0, "Who may use the heaps and the socket:", 2 },
	{ "owner", OPT_OWNER, "USER", 0, "Owner (who starts nolockd)", 2 },
	{ "group", OPT_GROUP, "GROUP", 0, "Group (of who starts nolockd)", 2 },
	{ "mode", OPT_MODE, "OCTAL", 0, "Permissions (600)", 2 },

	{ NULL, 0, NULL, 0, "Tracing:", 3 },
	{ "no-trace", OPT_NO_TRACE, NULL, 0, "Load no tracing programs", 3 },
	{ "trace-nested", OPT_NESTED, NULL, 0,
	  "Miss no event in an interrupt within a tracing program, at a higher cost", 3 },
	{ "usdt", OPT_USDT, "FILE", 0,
	  "Attach to libnolock's probes in this library or program (may be repeated)", 3 },
	{ "ring", OPT_RING, "SIZE", 0, "Room for events that nobody has read yet (4M)", 3 },

	{ NULL, 0, NULL, 0, "Running:", 4 },
	{ "socket", 's', "PATH", 0, "Serve here (" NL_SOCKET_PATH ")", 4 },
	{ "daemon", OPT_DAEMON, NULL, 0, "Go to the background once all is ready", 4 },
	{ "foreground", OPT_FOREGROUND, NULL, 0, "Stay in the foreground (the default)", 4 },
	{ "pidfile", OPT_PIDFILE, "FILE", 0, "Write the process's number there", 4 },
	{ "quiet", 'q', NULL, 0, "Say only what goes wrong", 4 },
	{ "check-config", OPT_CHECK, NULL, 0, "Check the options and do nothing", 4 },
	{ 0 },
};

static struct config {
	struct heap_spec heaps[MAX_HEAPS];
	bool fresh[MAX_HEAPS];
	unsigned int nr_heaps;
	const char *reformat[MAX_HEAPS];
	unsigned int nr_reformat;
	struct heaps_options heap_opts;
	struct tracing_options trace;
	const char *socket;
	const char *pidfile;
	bool background;
	bool check_only;
} config = {
	.heap_opts = { .watermark = 64 << 10, .access.mode = 0600 },
};

static void add_heap(struct argp_state *state, const char *arg)
{
	struct heap_spec *spec = &config.heaps[config.nr_heaps];
	const char *why;
	unsigned int i;

	if (config.nr_heaps == MAX_HEAPS)
		argp_failure(state, EXIT_ARGUMENTS, 0, "--heap: more than %d heaps", MAX_HEAPS);
	if (spec_heap(arg, spec, &why))
		argp_failure(state, EXIT_ARGUMENTS, 0, "--heap=%s: %s", arg, why);
	for (i = 0; i < config.nr_heaps; i++)
		if (!strcmp(config.heaps[i].name, spec->name))
			argp_failure(state, EXIT_ARGUMENTS, 0, "--heap=%s: named twice",
				     spec->name);
	config.nr_heaps++;
}

static uint64_t size_option(struct argp_state *state, const char *name, const char *arg,
			    uint64_t min, uint64_t max)
{
	uint64_t value = 0;

	if (spec_size(arg, &value) || value < min || value > max)
		argp_failure(state, EXIT_ARGUMENTS, 0,
			     "--%s=%s: must be a size from %lluK to %lluM", name, arg,
			     (unsigned long long)min >> 10, (unsigned long long)max >> 20);
	return value;
}

static uid_t user_option(struct argp_state *state, const char *arg)
{
	struct passwd *pw = getpwnam(arg);
	uint64_t id;

	if (pw)
		return pw->pw_uid;
	if (spec_number(arg, 0, UINT32_MAX - 1, &id))
		argp_failure(state, EXIT_ARGUMENTS, 0, "--owner=%s: no such user", arg);
	return id;
}

static gid_t group_option(struct argp_state *state, const char *arg)
{
	struct group *gr = getgrnam(arg);
	uint64_t id;

	if (gr)
		return gr->gr_gid;
	if (spec_number(arg, 0, UINT32_MAX - 1, &id))
		argp_failure(state, EXIT_ARGUMENTS, 0, "--group=%s: no such group", arg);
	return id;
}

static mode_t mode_option(struct argp_state *state, const char *arg)
{
	unsigned long mode;
	char *end;

	mode = strtoul(arg, &end, 8);
	if (*end || !*arg || mode > 0666 || mode & 0111)
		argp_failure(state, EXIT_ARGUMENTS, 0,
			     "--mode=%s: must be octal, of read and write bits alone, as in 660",
			     arg);
	return mode;
}

/* Every heap to be made anew must be one that is to be served. */
static void match_reformat(struct argp_state *state)
{
	unsigned int i, k;

	for (i = 0; i < config.nr_reformat; i++) {
		for (k = 0; k < config.nr_heaps; k++)
			if (!strcmp(config.reformat[i], config.heaps[k].name))
				break;
		if (k == config.nr_heaps)
			argp_failure(state, EXIT_ARGUMENTS, 0,
				     "--reformat=%s: there is no --heap=%s", config.reformat[i],
				     config.reformat[i]);
		config.fresh[k] = true;
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'H':
		add_heap(state, arg);
		break;
	case OPT_WATERMARK:
		config.heap_opts.watermark =
			size_option(state, "low-watermark", arg, 4 << 10, 64 << 20);
		break;
	case OPT_REFORMAT:
		if (config.nr_reformat == MAX_HEAPS)
			argp_failure(state, EXIT_ARGUMENTS, 0, "--reformat: more than %d heaps",
				     MAX_HEAPS);
		config.reformat[config.nr_reformat++] = arg;
		break;
	case OPT_DESTROY:
		config.heap_opts.destroy_on_exit = true;
		break;
	case OPT_OWNER:
		config.heap_opts.access.uid = user_option(state, arg);
		break;
	case OPT_GROUP:
		config.heap_opts.access.gid = group_option(state, arg);
		break;
	case OPT_MODE:
		config.heap_opts.access.mode = mode_option(state, arg);
		break;
	case OPT_NO_TRACE:
		config.trace.off = true;
		break;
	case OPT_NESTED:
		config.trace.nested = true;
		break;
	case OPT_USDT:
		if (config.trace.nr_usdt == sizeof(config.trace.usdt) / sizeof(char *))
			argp_failure(state, EXIT_ARGUMENTS, 0, "--usdt: more than %u files",
				     config.trace.nr_usdt);
		config.trace.usdt[config.trace.nr_usdt++] = arg;
		break;
	case OPT_RING:
		config.trace.ring_bytes = size_option(state, "ring", arg, 64 << 10, 256 << 20);
		break;
	case 's':
		if (!*arg || strlen(arg) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			argp_failure(state, EXIT_ARGUMENTS, 0,
				     "--socket=%s: must be a path of at most %zu bytes", arg,
				     sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
		config.socket = arg;
		break;
	case OPT_PIDFILE:
		if (!*arg)
			argp_failure(state, EXIT_ARGUMENTS, 0, "--pidfile=: name a file");
		config.pidfile = arg;
		break;
	case 'q':
		say_quietly();
		break;
	case OPT_DAEMON:
		config.background = true;
		break;
	case OPT_FOREGROUND:
		config.background = false;
		break;
	case OPT_CHECK:
		config.check_only = true;
		break;
	case ARGP_KEY_ARG:
		argp_failure(state, EXIT_ARGUMENTS, 0,
			     "'%s': nolockd takes options alone; heaps are given as "
			     "--heap=NAME",
			     arg);
		break;
	case ARGP_KEY_END:
		if (config.trace.off &&
		    (config.trace.nested || config.trace.nr_usdt || config.trace.ring_bytes))
			argp_failure(state, EXIT_ARGUMENTS, 0,
				     "--no-trace: leaves nothing to do for --trace-nested, --usdt "
				     "and --ring");
		match_reformat(state);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/*
 * Go to the background, but not yet: the caller of nolockd gets its prompt back when all is
 * ready, or nolockd's exit status when it is not. Returns the descriptor to say so on, in the
 * child; the parent does not return.
 */
static int detach(void)
{
	int pipefd[2];
	char status;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC)) {
		complain("cannot make a pipe: %s", strerror(errno));
		exit(1);
	}
	pid = fork();
	if (pid < 0) {
		complain("cannot fork: %s", strerror(errno));
		exit(1);
	}
	if (pid) {
		close(pipefd[1]);
		_exit(read(pipefd[0], &status, 1) == 1 ? status : EXIT_NOTHING);
	}
	close(pipefd[0]);
	setsid();
	return pipefd[1];
}

static void attached_no_more(int pipefd, char status)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	say_to_syslog();
	if (write(pipefd, &status, 1) != 1)
		complain("nobody waited for nolockd to be ready");
	close(pipefd);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		close(null);
	}
	if (chdir("/"))
		complain("cannot change to /: %s", strerror(errno));
}

/* Tell the service manager, if one asked to be told. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len;
	int fd;

	if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof(addr.sun_path))
		return;
	strcpy(addr.sun_path, path);
	len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	if (*path == '@')
		addr.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr, len) < 0)
		complain("cannot tell the service manager at %s: %s", path, strerror(errno));
	close(fd);
}

/*
 * Keep what is needed from here on: BPF for the tracing programs and heaps made anew, symbols for
 * call sites; mounting rights only if there is something to unmount at the end, and that to give
 * files away only if the heaps' pins are another's.
 */
static void drop_capabilities(void)
{
	static const int keep[] = { CAP_BPF,	CAP_PERFMON, CAP_SYSLOG, CAP_KILL,
				    CAP_SETUID, CAP_SETGID,  CAP_SETPCAP };
	const struct access *access = &config.heap_opts.access;
	bool others = access->uid != geteuid() || access->gid != getegid();
	unsigned int i;

	if (capng_get_caps_process() || capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE)
		return;
	for (i = 0; i <= CAP_LAST_CAP; i++) {
		unsigned int k;
		bool kept = (i == CAP_SYS_ADMIN && bpffs_mounted_by_nolockd()) ||
			    (i == CAP_CHOWN && others);

		for (k = 0; k < sizeof(keep) / sizeof(*keep); k++)
			kept |= i == (unsigned int)keep[k];
		if (!kept)
			capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, i);
	}
	if (capng_apply(CAPNG_SELECT_CAPS))
		complain("cannot drop capabilities: going on with all of them");
}

static bool stopping;

static void take_signal(struct watch *w, uint32_t events)
{
	struct signalfd_siginfo info;
	sigset_t set;

	(void)events;
	if (read(w->fd, &info, sizeof(info)) != sizeof(info))
		return;
	say("%s: stopping", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
	stopping = true;
	/* The next one finds its default action: it kills. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static struct watch signals = { .fd = -1, .ready = take_signal };

static int start_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return signals.fd < 0 ? -errno : loop_add(&signals, EPOLLIN);
}

/* What nolockd will have done by its end: 0 or EXIT_PART. */
static int outcome;

/* Returns -1 when nothing is left to do. */
static int start_tracing(void)
{
	enum tracing_outcome traced = tracing_start(&config.trace);

	if (traced != TRACING_ON)
		outcome = EXIT_PART;
	return traced == TRACING_REFUSED && !config.nr_heaps ? -1 : 0;
}

static bool pidfile_written;

static int write_pidfile(void)
{
	FILE *f = fopen(config.pidfile, "we");

	if (f && fprintf(f, "%d\n", getpid()) > 0 && !fclose(f)) {
		pidfile_written = true;
		return 0;
	}
	complain("cannot write %s: %s", config.pidfile, strerror(errno));
	return -1;
}

/* Everything up to the point where clients are answered. */
static int start(void)
{
	unsigned int i;

	if (loop_init() || start_signals()) {
		complain("cannot start: %s", strerror(errno));
		return -1;
	}
	if (server_bind(config.socket, &config.heap_opts.access))
		return -1;
	for (i = 0; i < config.nr_heaps; i++)
		if (heaps_start(&config.heaps[i], &config.heap_opts, config.fresh[i]))
			return -1;
	if (start_tracing())
		return -1;
	if (config.pidfile && write_pidfile())
		return -1;
	drop_capabilities();
	if (server_serve()) {
		complain("cannot serve at %s: %s", config.socket, strerror(errno));
		return -1;
	}
	return 0;
}

static void stop(void)
{
	server_stop();
	tracing_stop();
	heaps_stop();
	bpffs_cleanup();
	if (pidfile_written)
		unlink(config.pidfile);
	loop_exit();
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
	struct rlimit files;
	uint64_t ticked = 0;
	int pipefd = -1, err;

	argp_err_exit_status = EXIT_ARGUMENTS;
	config.heap_opts.access.uid = geteuid();
	config.heap_opts.access.gid = getegid();
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (!config.socket)
		config.socket = getenv(NL_SOCKET_ENV);
	if (!config.socket || !*config.socket)
		config.socket = NL_SOCKET_PATH;
	if (config.check_only) {
		say("the options are right: %u heaps, socket %s", config.nr_heaps, config.socket);
		return 0;
	}
	/* A descriptor and a process's descriptor for each client of each heap. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (config.background)
		pipefd = detach();
	if (start()) {
		stop();
		return EXIT_NOTHING;
	}
	printf("READY %u heaps at %s\n", heaps_count(), config.socket);
	fflush(stdout);
	notify("READY=1");
	if (pipefd >= 0)
		attached_no_more(pipefd, outcome);
	do {
		err = loop_once(TICK_MS);
		if (now_ms() - ticked >= TICK_MS) {
			ticked = now_ms();
			heaps_tick();
			server_tick();
		}
	} while (!err && !stopping);
	if (err)
		complain("cannot wait for events: %s", strerror(-err));
	notify("STOPPING=1");
	stop();
	return err ? EXIT_NOTHING : outcome;
}
