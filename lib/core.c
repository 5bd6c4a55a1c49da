/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* core.c - the one core, compiled for the CPU. bpf/nolock.bpf.c is its other half. */
#include "core/chunk.h"
#include "core/slab.h"
#include "core/sheaf.h"
#include "core/cascade.h"
