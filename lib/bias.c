// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/* bias.c - A-slots that are kept for BPF programs: taking one back. core/slot.h says why it holds. */
#include "internal.h"
#include "rseq.h"
#include "core/slot.h"

static bool may_steal;

void nl_slot_may_steal(bool may)
{
	nl_store(&may_steal, may);
}

/* The range of the number is nobody's business: a CPU of that number is compared with, no more. */
int nl_slot_steal(nl_slot_t *slot, nl_u32 who)
{
	nl_u64 lock = nl_load(&slot->lock);
	nl_u32 cpu = (NL_OWNER_WHO(lock) & 0xffff) - 1;

	if (!nl_load(&may_steal) || nl_self.vforked || lock != NL_BIASED(cpu))
		return 0;
	/* Once more if it was aborted; if somebody else took it, the lock has changed. */
	for (int i = 0; i < NL_RSEQ_TRIES && nl_load(&slot->lock) == lock; i++)
		if (nl_rseq_cas_on_cpu(&slot->lock, lock, NL_HELD(who), cpu))
			return 1;
	return 0;
}
