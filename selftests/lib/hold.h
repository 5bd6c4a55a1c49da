/* SPDX-License-Identifier: GPL-2.0-only */
/* hold.h - a slot's lock held by somebody who is not there, and let go again (word 0). */
#ifndef NOLOCK_SELFTESTS_HOLD_H
#define NOLOCK_SELFTESTS_HOLD_H

#include "internal.h"
#include "core/slot.h"

static inline void hold_aslot(nl_slot_t *slot, nl_u64 word)
{
	nl_store(&slot->lock, word);
}

/* No thread of the test is in a sequence on the slot. */
static inline void hold_rslot(nl_slot_t *slot, nl_u64 word)
{
	if (!word) {
		nl_rslot_unlock(slot);
		return;
	}
	nl_store(&slot->lock, word);
	nl_or(&slot->word, NL_WORD_LOCKED);
}

static inline nl_u64 rslot_held(nl_slot_t *slot)
{
	return nl_load(&slot->word) & NL_WORD_LOCKED ? nl_load(&slot->lock) : 0;
}

#endif /* NOLOCK_SELFTESTS_HOLD_H */
