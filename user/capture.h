/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * capture.h - what libbpf has to say, for one line to the user instead of its own on stderr.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

/*
 * What libbpf says between begin and end is kept; the text of the last complaint that explains
 * something, or "". The text stays until the next begin.
 */
void nl_capture_begin(void);
const char *nl_capture_end(void);

#endif /* CAPTURE_H */
