// SPDX-License-Identifier: GPL-2.0-only
/*
 * tracing.c - see tracing.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "kernel_stat.h"
#include "loop.h"
#include "say.h"
#include "trace.h"
#include "tracing.h"

static struct nl_trace *trace;
static const char *off_why = "nolockd was started with --no-trace";
static char none_why[256]; /* why not one program is attached, or "" */

static struct {
	struct watch w;
	bool on;
	tracing_sink sink;
	void *arg;
	pid_t reader;
	uint64_t lost; /* events lost in the ring that the reader knows of */
	char lines[NL_PROTO_TEXT];
	size_t len;
	unsigned int events;
} stream = { .w.fd = -1 };

/* Libnolock's probes in the files asked for: how many were attached. */
static int attach_usdt(const struct tracing_options *opts, bool *all)
{
	unsigned int i;
	int n = 0;

	for (i = 0; i < opts->nr_usdt; i++) {
		int probes = nl_trace_usdt(trace, opts->usdt[i], -1);

		if (probes < 0) {
			complain("tracing: no probes of libnolock attached in %s: %s",
				 opts->usdt[i], strerror(-probes));
			*all = false;
		} else {
			n += probes;
		}
	}
	return n;
}

enum tracing_outcome tracing_start(const struct tracing_options *opts)
{
	struct nl_trace_opts topts = { .sz = sizeof(topts), .ring_bytes = opts->ring_bytes };
	unsigned int asked;
	bool all = true;
	int n, probes;

	if (opts->off)
		return TRACING_ON;
	if (opts->nested)
		topts.what = NL_TRACE_ALL | NL_TRACE_NESTED;
	trace = nl_trace_open(&topts);
	if (!trace) {
		off_why = "nolockd was out of memory";
		complain("tracing: out of memory: off");
		return TRACING_REFUSED;
	}
	n = nl_trace_attach(trace);
	if (nl_trace_error(trace)) {
		complain("tracing: off: %s", nl_trace_error(trace));
		return TRACING_REFUSED;
	}
	asked = nl_trace_nr_progs(trace);
	probes = attach_usdt(opts, &all);
	if (!n && probes <= 0) {
		snprintf(none_why, sizeof(none_why),
			 "the kernel refuses every program, the first because: %s",
			 asked ? nl_trace_prog(trace, 0)->reason : "there is none");
		complain("tracing: off: %s", none_why);
		return TRACING_REFUSED;
	}
	if (n < (int)asked)
		say("tracing: %d of %u programs attached; nolock status says what is missing", n,
		    asked);
	else
		say("tracing: all %u programs attached", asked);
	return all ? TRACING_ON : TRACING_IN_PART;
}

void tracing_stop(void)
{
	tracing_unstream();
	nl_trace_close(trace);
	trace = NULL;
}

/* Why nothing can be traced, or NULL. */
static const char *why_not(void)
{
	if (!trace)
		return off_why;
	return *none_why ? none_why : nl_trace_error(trace);
}

json_object *tracing_status(void)
{
	json_object *o = json_object_new_object();
	struct nl_trace_counts counts;

	json_put_bool(o, "on", !why_not());
	json_put_text(o, "why", why_not() ? why_not() : "");
	if (!trace)
		return o;
	json_object_object_add(o, "programs", nl_trace_progs_json(trace));
	if (!nl_trace_counts(trace, &counts))
		json_object_object_add(o, "counts", nl_trace_counts_json(&counts));
	json_put_u64(o, "reader", stream.on ? stream.reader : 0);
	return o;
}

json_object *tracing_kernel(const char **why)
{
	struct nl_kernel_stat stat;
	json_object *o;
	int err;

	/* Without a program attached there is still /proc/slabinfo. */
	err = nl_kernel_stat_read(trace, &stat);
	if (err) {
		*why = err == -EACCES ? "nolockd may read neither the kernel's caches by BPF nor "
					"/proc/slabinfo: start it as root" :
					strerror(-err);
		return NULL;
	}
	o = nl_kernel_stat_json(&stat, trace);
	if (o)
		json_put_text(o, "why", why_not() ? why_not() : "");
	nl_kernel_stat_free(&stat);
	*why = o ? "" : "nolockd is out of memory";
	return o;
}

static void stream_flush(void)
{
	if (stream.len)
		stream.sink(stream.arg, stream.lines, stream.len, stream.events);
	stream.len = 0;
	stream.events = 0;
}

static void stream_line(const char *text, size_t len, unsigned int events)
{
	if (stream.len + len + 1 > sizeof(stream.lines))
		stream_flush();
	if (len + 1 > sizeof(stream.lines))
		return;
	memcpy(stream.lines + stream.len, text, len);
	stream.len += len;
	stream.lines[stream.len++] = '\n';
	stream.events += events;
}

static int stream_event(void *arg, const struct nlt_event *event)
{
	json_object *o = nl_trace_event_json(trace, event);
	const char *text;
	size_t len;

	(void)arg;
	if (!o)
		return 0;
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
	stream_line(text, len, 1);
	json_object_put(o);
	return 0;
}

static void stream_ready(struct watch *w, uint32_t events)
{
	struct nl_trace_counts counts;
	char note[48];

	(void)w;
	(void)events;
	nl_trace_consume(trace, stream_event, NULL);
	if (!nl_trace_counts(trace, &counts) && counts.lost_ring != stream.lost) {
		stream_line(note,
			    snprintf(note, sizeof(note), "{\"lost\":%llu}",
				     (unsigned long long)(counts.lost_ring - stream.lost)),
			    0);
		stream.lost = counts.lost_ring;
	}
	stream_flush();
}

int tracing_stream(const struct nl_request *req, pid_t reader, tracing_sink sink, void *arg,
		   const char **why)
{
	struct nl_trace_filter filter = { .sample = req->sample, .pid = req->pid };
	struct nl_trace_counts counts;
	int err;

	*why = why_not();
	if (*why)
		return -ENODEV;
	*why = "";
	if (stream.on)
		return -EBUSY;
	stream.w = (struct watch){ .fd = nl_trace_fd(trace), .ready = stream_ready };
	if (stream.w.fd < 0) {
		*why = "no program that sends events is attached";
		return -ENODEV;
	}
	snprintf(filter.cache, sizeof(filter.cache), "%s", req->name);
	/* The reader's own allocations, one for each event it reads, would feed the stream. */
	nl_trace_quiet(trace, reader, true);
	err = nl_trace_stream(trace, &filter);
	if (!err)
		err = loop_add(&stream.w, EPOLLIN);
	if (err) {
		nl_trace_stream(trace, NULL);
		nl_trace_quiet(trace, reader, false);
		return err;
	}
	stream.on = true;
	stream.sink = sink;
	stream.arg = arg;
	stream.reader = reader;
	stream.len = 0;
	stream.lost = nl_trace_counts(trace, &counts) ? 0 : counts.lost_ring;
	return 0;
}

static int drop_event(void *arg, const struct nlt_event *event)
{
	(void)arg;
	(void)event;
	return 0;
}

void tracing_unstream(void)
{
	if (!stream.on)
		return;
	stream.on = false;
	loop_remove(&stream.w);
	nl_trace_stream(trace, NULL);
	nl_trace_quiet(trace, stream.reader, false);
	/* What still waits is nobody's: the next reader starts with events of its own time. */
	nl_trace_consume(trace, drop_event, NULL);
}
