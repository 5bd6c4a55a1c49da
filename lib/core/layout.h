/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * layout.h - what a heap looks like in memory, private or shared, for the CPU and for BPF.
 *
 * A heap is one range of addresses, cut into chunks of 64 KiB and groups of 64 chunks:
 *
 *   0          header, caches                        struct nl_heap, struct nl_cache[]
 *   off_rslot  R-slots   [nr_slots][NL_MAX_CACHES]   touched by rseq sections alone
 *   off_aslot  A-slots   [nr_slots][NL_MAX_CACHES]   atomic trylock
 *   off_node   a byte for each slot: the node of its CPU
 *   off_smap   a bit for each sheaf: free
 *   off_sheaf  sheaves   [nr_sheaves]
 *   off_gfree  a bit for each group: has free chunks (hint); then one: drawn, but not opened
 *   off_gpart  [nr_nodes][NL_MAX_CACHES] bitmaps over groups: has partial slabs (hint)
 *   off_tag    a u32 for each chunk
 *   off_group  struct nl_group for each group: chunk bitmap, slab bitmaps
 *   first_chunk << 16   chunks: slabs, large objects, free
 *
 * Offsets count from the heap's base. Links between metadata are indices; only the object
 * pointers in sheaves and nl_slot.objs are addresses, the same in every process (a shared heap is
 * mapped at one address) and usable in BPF, which takes their low 32 bits.
 *
 * Nothing here is trusted by a reader on the other side: BPF programs bound every loop by a
 * constant and can reach nothing but the arena; nolockd copies before it checks.
 */
#ifndef NL_CORE_LAYOUT_H
#define NL_CORE_LAYOUT_H

#include "place.h"

#define NL_MAGIC 0x31306b636f6c6f6eULL /* "nolock01" */

/*
 * What a build for small machines (make TINY=1) changes: these constants, nothing else. No barns,
 * short sheaves, few of them. A heap of one build is another version to the other.
 */
#ifdef NOLOCK_TINY
#define NL_VERSION 0x10003
#define NL_MAX_CACHES_SHIFT 7
#define NL_MAX_NODES 1u
#define NL_MAX_CLIENTS 32u
#define NL_BARN_MAX 0u
#define NL_SHEAVES(slots) (24u * (slots))
#define NL_SHEAVES_DEEP 0u
#define NL_SHEAF_BYTES 1024u /* of small objects in a sheaf, by default; the rest likewise */
#define NL_SHEAF_BYTES_BIG 4096u
#define NL_SHEAF_MOST 16u
#define NL_SHEAF_LEAST 2u
#define NL_DEFAULT_SIZE (4ULL << 30)
#else
#define NL_VERSION 3
#define NL_MAX_CACHES_SHIFT 8
#define NL_MAX_NODES 4u
#define NL_MAX_CLIENTS 256u
#define NL_BARN_MAX 10u /* full and empty sheaves: MAX_FULL_SHEAVES, MAX_EMPTY_SHEAVES */
/* Room for two sheaves of every slot and a full barn for most kmalloc caches. */
#define NL_SHEAVES(slots) (48u * (4 * (slots) + 2 * NL_BARN_MAX + 4))
/* Those of a private heap more, for barns that grow deeper (slot.h): 8 MiB of small objects. */
#define NL_SHEAVES_DEEP 1024u
#define NL_SHEAF_BYTES 8192u
#define NL_SHEAF_BYTES_BIG 16384u
#define NL_SHEAF_MOST 120u
#define NL_SHEAF_LEAST 4u
#define NL_DEFAULT_SIZE (256ULL << 30)
#endif

#define NL_CHUNK_SHIFT 16
#define NL_CHUNK_SIZE (1u << NL_CHUNK_SHIFT)
#define NL_GROUP_SHIFT 6 /* chunks in a group, and bits in a word */
#define NL_GROUP_CHUNKS (1u << NL_GROUP_SHIFT)
#define NL_GROUP_SIZE ((nl_u64)NL_CHUNK_SIZE << NL_GROUP_SHIFT)
#define NL_PAGE 4096u

#define NL_MAX_CACHES (1u << NL_MAX_CACHES_SHIFT)
#define NL_NR_BUCKETS 40u /* sizes of kmalloc: caches 0 to 39; accounted, 40 to 79 */
#define NL_NR_KMALLOC (2 * NL_NR_BUCKETS)
#define NL_MAX_GROUPS (1u << 16)	  /* 256 GiB */
#define NL_RUN_MAX (NL_GROUP_CHUNKS + 1u) /* lengths of runs that are told apart */
#define NL_SHEAF_MAX 126u		  /* objects in a sheaf */
#define NL_SLAB_WORDS 64u		  /* words of free bits: 4096 objects of 16 bytes */
#define NL_MIN_SIZE 16u
#define NL_MAX_SIZE 32768u
#define NL_NAME 32

/* Tries of a cmpxchg before its wait-free exit. */
#define NL_TRIES 3u

/*
 * Who holds a lock: {client 16, thread 16, 1}, never 0. Free is 0, so that a holder that comes and
 * goes under an interrupted trylock leaves the word as it was. Clients: 1 to NL_MAX_CLIENTS, a
 * private heap's process is 1; NL_CLIENT_BPF has the CPU as its thread; NL_CLIENT_NOLOCKD repairs.
 *
 * An A-slot may be free and kept for its CPU's BPF programs: biased (slot.h). Held by one of them and
 * biased before, both bits are set.
 */
#define NL_CLIENT_BPF 0xffffu
#define NL_CLIENT_NOLOCKD 0xfffeu
#define NL_OWNER(client, thread) (((nl_u64)(client) << 48) | ((nl_u64)(nl_u16)(thread) << 32))
#define NL_HELD(who) ((nl_u64)(who) << 32 | 1)
#define NL_BIAS 2ULL
#define NL_BIASED(cpu) (NL_OWNER(NL_CLIENT_BPF, (cpu) + 1) | NL_BIAS)
#define NL_IS_HELD(lock) ((int)((lock)&1))
#define NL_FREED(lock) ((lock) & ~1ULL)
#define NL_OWNER_CLIENT(owner) ((nl_u32)((owner) >> 48))
#define NL_OWNER_WHO(owner) ((nl_u32)((owner) >> 32))

/*
 * A chunk's tag: {offset of the cache's slot among a CPU's 16, kind 4, 12 unused}. One load turns a
 * pointer into its cache, and into where its slots are. Of a chunk in somebody's hands it is
 * {thread 16, kind 4, client 12}. The tag alone says whose a chunk is; the bits of chunk_free and
 * reserve are where to look for free ones.
 */
#define NL_SLOT_SHIFT 8					   /* sizeof(struct nl_slot) */
#define NL_ROW_SHIFT (NL_SLOT_SHIFT + NL_MAX_CACHES_SHIFT) /* of one CPU's slots */
#define NL_TAG(kind, id) (((nl_u32)(kind) << 16) | (((nl_u32)(id)&0xff) << NL_SLOT_SHIFT))
#define NL_TAG_KIND(tag) (((tag) >> 16) & 0xf)
#define NL_TAG_CACHE(tag) (((tag) >> NL_SLOT_SHIFT) & (NL_MAX_CACHES - 1))
#define NL_TAG_SLOT(tag) ((tag)&0xffff)
#define NL_TAG_TRANSIT(who)                                                                        \
	(((nl_u32)NL_KIND_TRANSIT << 16) | ((nl_u32)(who)&0xffff) |                                \
	 (((nl_u32)(who) >> 16 & 0xfff) << 20))
enum {
	NL_KIND_FREE,	 /* free, or not opened */
	NL_KIND_META,	 /* no chunk that can be had: there was no memory to open it */
	NL_KIND_SLAB,	 /* a slab of the cache */
	NL_KIND_LARGE,	 /* first chunk of a large object; nl_slab.nr_chunks long */
	NL_KIND_BODY,	 /* a further chunk of a large object */
	NL_KIND_TRANSIT, /* in the hands of whom the rest of the tag names */
	NL_KIND_WAIT,	 /* of a private heap: free after a grace period, a slab until now */
};

/* Counters of a slot. Written under the slot's lock, or by atomic add where no lock is held. */
enum {
	NL_STAT_IN,  /* objects that came into main other than by a free: wraps */
	NL_STAT_OUT, /* objects that left main other than by an allocation: wraps */
	NL_STAT_ALLOC_SLOWPATH,
	NL_STAT_FREE_SLOWPATH,
	NL_STAT_ALLOC_SLAB,
	NL_STAT_FREE_SLAB,
	NL_STAT_SHEAF_FLUSH,
	NL_STAT_SHEAF_REFILL,
	NL_STAT_SHEAF_ALLOC,
	NL_STAT_SHEAF_FREE,
	NL_STAT_BARN_GET,
	NL_STAT_BARN_GET_FAIL,
	NL_STAT_BARN_PUT,
	NL_STAT_BARN_PUT_FAIL,
	NL_STAT_PREFILL_FAST,
	NL_STAT_PREFILL_SLOW,
	NL_STAT_PREFILL_OVERSIZE,
	NL_STAT_RETURN_FAST,
	NL_STAT_RETURN_SLOW,
	NL_STAT_BUSY,
	NL_STAT_NEXT_BUCKET,
	NL_STAT_ALLOC_FAIL,
	NL_STAT_FREE_REFUSED,
	NL_STAT_NODE_MISMATCH,
	NL_STAT_SLOT_LOCK,
	NL_NR_STAT,
};

/*
 * A slot: one CPU's (R: one mm_cid's in a private heap) sheaves of one cache.
 *
 * R-slot: lock, word and *objs are touched only inside an rseq section on the slot's CPU, or by
 * whoever locked the word, in such a section or from another CPU (shrink.c); the section's one store
 * to word is its commit.
 * A-slot: everything is touched by the holder of the lock alone, who took it by cmpxchg.
 *
 * word = {allocations 48, locked 1, shrinker 7, 0, objects in main 7}: one store commits an
 * allocation and counts it. Frees are not counted but derived: size + allocations + out - in. To a
 * fast path a locked word is one with no objects (a negative number of 16 bits) and without room
 * (more than any cap).
 */
struct nl_slot {
	nl_u64 lock; /* A: 0, or the holder; R: the holder, while the word is locked */
	nl_u64 word;
	nl_u64 objs;	 /* address of main's obj[]; 0 without a main sheaf */
	nl_u32 cap;	 /* objects that main may hold; 0 sends both fast paths to the slow one */
	nl_u32 main;	 /* sheaf index + 1, or 0 */
	nl_u32 spare;	 /* sheaf index + 1, or 0 */
	nl_u32 last_tag; /* A, of cache 0: of what the CPU's programs freed last, a hint */
	nl_u64 stat[NL_NR_STAT];
	nl_u64 seen; /* word, when decay.c looked the last time */
	nl_u32 turn; /* the last exchange: {allocations 29, quick 2, main was full 1} */
	nl_u32 pad[1];
};

/*
 * Intent of a slab lock's holder, written before a step during which objects are in no place that
 * others can see, and cleared after it, so that whoever takes over a dead holder's lock can tell
 * how far it came: {op 8, word 8, sheaf index + 1 32, size 16}.
 *   TAKE     the bits of nl_slab.mask go from the word to the sheaf, whose size is this before
 *   GIVE     from the sheaf to the word, its size is this afterwards
 *   NEW      the words are filled, from the first on; object 0 goes to the sheaf, or to the caller
 *   RELEASE  the words up to this one are taken, all of them full
 *   PURGE    of the words up to this one the bits are taken that lie in pages; their mask is where
 *            the sheaf is otherwise (shrink.c)
 */
#define NL_INTENT(op, word, sheaf, n)                                                              \
	(((nl_u64)(op) << 56) | ((nl_u64)(word) << 48) | ((nl_u64)(sheaf) << 16) | (nl_u64)(n))
#define NL_INTENT_OP(i) ((nl_u32)((i) >> 56))
#define NL_INTENT_WORD(i) ((nl_u32)((i) >> 48) & 63)
#define NL_INTENT_SHEAF(i) ((nl_u32)((i) >> 16))
#define NL_INTENT_SIZE(i) ((nl_u32)(i)&0xffff)
enum {
	NL_INTENT_NONE,
	NL_INTENT_TAKE,
	NL_INTENT_GIVE,
	NL_INTENT_NEW,
	NL_INTENT_RELEASE,
	NL_INTENT_PURGE,
};

/*
 * nl_sheaf.owner: 0 while the sheaf is free, which it alone decides; the map's bits are where to
 * look for free ones. NL_LISTED: a slot or a barn names it. {client 16, thread 16, 0}: taken out of
 * every list, in transit. The same | NL_PREFILLED: in its owner's hands for good.
 */
#define NL_PREFILLED 1u
#define NL_LISTED 2u

/* A sheaf: 1 KiB. Written by whoever holds the lock of the slot or barn that it hangs on. */
struct nl_sheaf {
	nl_u32 next;  /* sheaf index + 1 in a barn's list, or 0 */
	nl_u16 cache; /* id + 1; 0 while the sheaf is free */
	nl_u16 size;  /* objects; 0 while it is a slot's main sheaf: the slot's word has it then */
	nl_u64 owner; /* 0, NL_LISTED, or whose */
	nl_u64 obj[NL_SHEAF_MAX];
};

/* A barn: one node's full and empty sheaves of one cache, LIFO. Fields under lock. */
struct nl_barn_list {
	nl_u32 first; /* sheaf index + 1, or 0 */
	nl_u32 nr;
};

struct nl_barn {
	nl_u64 lock;
	struct nl_barn_list full;
	struct nl_barn_list empty;
	nl_u64 deep; /* of a private heap, atomic: full sheaves that it takes beyond NL_BARN_MAX */
	nl_u64 flushed; /* racy: sheaves flushed since for want of room */
	nl_u64 pad[3];
};

enum {
	NL_CACHE_FREE,
	NL_CACHE_BUSY, /* being made or destroyed: by the client in the bits above */
	NL_CACHE_LIVE,
};
#define NL_CACHE_BUSY_BY(client) (NL_CACHE_BUSY | (nl_u32)(client) << 8)

/* In nl_cache.mode: slots have a main sheaf alone, filled by frees, bypassed when empty or full. */
#define NL_CACHE_ARRAY 1u
/* Of a private heap: a slab that is given back waits for a grace period (lib/rcu.c). */
#define NL_CACHE_TYPESAFE 2u

/* A cache. Constant after it went live, but for the number of its slabs and the barns. */
struct nl_cache {
	nl_u32 state;
	nl_u32 size;	    /* distance between two objects */
	nl_u32 recip;	    /* ceil(2^32 / size): offset to index by multiplication */
	nl_u32 per_slab;    /* objects in a slab */
	nl_u32 capacity;    /* objects in a sheaf; 0: no sheaves */
	nl_u32 object_size; /* as asked for */
	nl_u32 align;
	nl_u32 flags;
	nl_u32 nr_slabs; /* atomic */
	nl_u32 left;	 /* debugged: from an object's slab bit to its first byte */
	nl_u64 ctor;	 /* address in the process of a private heap */
	nl_u32 words;	 /* words of free bits in a slab */
	nl_u32 next;	 /* the next larger kmalloc bucket's id, or the own id */
	nl_u32 id;
	nl_u32 mode; /* NL_CACHE_ARRAY, NL_CACHE_TYPESAFE */
	char name[NL_NAME];
	nl_u64 bugs;	       /* atomic: what debugging found and mended in it */
	nl_u64 rcu_sheaf;      /* atomic: objects freed to an rcu sheaf */
	nl_u64 rcu_sheaf_fail; /* atomic: noted otherwise */
	nl_u64 made;	       /* how often the entry was written: nl_cache_read() */
	struct nl_barn barn[NL_MAX_NODES];
};

/*
 * A slab's free bits. Bit set: free, and in no sheaf. Allocation clears bits under the slab's lock,
 * or, in the last scan of all, one bit past it; free gives back by or, without a lock; no other
 * write. While a chunk is free all words are 0, so that a taker with a stale hint gets nothing;
 * whoever holds a bit of a slab keeps the chunk from becoming something else.
 */
struct nl_slab {
	nl_u64 free[NL_SLAB_WORDS];
	nl_u64 summary;	   /* hint: a bit for each word that may be non-zero */
	nl_u32 nr_chunks;  /* of a large object; written before its tag */
	nl_u32 scans;	   /* scan_begin when the lock was taken; another value if a scan was on */
	nl_u64 size;	   /* of a large object: bytes asked for */
	nl_u64 lock;	   /* who may take many bits, one try; others go to another slab */
	nl_u64 intent;	   /* of the lock's holder: NL_INTENT */
	nl_u64 mask;	   /* the bits that the intent concerns */
	nl_u32 scan_begin; /* atomic: takes of one bit past the lock, begun and ended */
	nl_u32 scan_end;
	nl_u64 accounted; /* of a large object: was it asked for with __GFP_ACCOUNT? */
};

/* 64 chunks. 10 pages. */
struct nl_group {
	nl_u64 chunk_free; /* free chunks, opened */
	nl_u64 reserve;	   /* free chunks for nolock callers alone */
	nl_u64 dirty;	   /* free chunks whose pages may be present */
	nl_u32 state;	   /* NL_GROUP_* */
	nl_u32 node;	   /* constant once the group is open */
	nl_u64 idle;	   /* dirty free chunks and empty slabs that decay.c saw the last time */
	nl_u64 pad[27];
	nl_u64 partial[NL_MAX_CACHES]; /* hint: slabs of the cache with a summary bit set */
	struct nl_slab slab[NL_GROUP_CHUNKS];
	nl_u64 pad2[480 - NL_MAX_CACHES];
};
enum {
	NL_GROUP_CLOSED,
	NL_GROUP_OPEN,
	NL_GROUP_BPF,	 /* a BPF program is opening it, and will end that */
	NL_GROUP_REPAIR, /* a repair is opening it */
};

/* A client of a shared heap. Written by nolockd, but for threads. */
struct nl_client {
	nl_u32 pid;	  /* 0: free */
	nl_u32 threads;	  /* the client's own: highest thread number that came by */
	nl_u64 starttime; /* field 22 of /proc/PID/stat: tells a reused pid apart */
};

#define NL_HEAP_PRIVATE 0u
#define NL_HEAP_MEMFD 1u
#define NL_HEAP_ARENA 2u

struct nl_heap {
	/* Constant after creation. */
	nl_u64 magic;
	nl_u32 version;
	nl_u32 type; /* NL_HEAP_* */
	nl_u64 base; /* address in every process */
	nl_u64 size;
	nl_u32 nr_groups;
	nl_u32 first_chunk;
	nl_u32 nr_slots;
	nl_u32 nr_nodes;
	nl_u32 nr_sheaves;
	nl_u32 slot_by_cpu; /* R-slots indexed by cpu_id, not by mm_cid */
	nl_u64 off_cache;
	nl_u64 off_rslot;
	nl_u64 off_aslot;
	nl_u64 off_smap;
	nl_u64 off_sheaf;
	nl_u64 off_gfree;
	nl_u64 off_gpart;
	nl_u64 off_tag;
	nl_u64 off_group;
	char name[NL_NAME];
	nl_u64 off_node;
	nl_u64 pad[4];

	/* Written while the heap is in use. */
	nl_u32 cursor;	       /* atomic: next group that nobody has opened yet */
	nl_u32 limit;	       /* groups that may be opened: nr_groups or less */
	nl_u32 nr_open;	       /* no open group at or above: bound of every scan */
	nl_u32 nr_left;	       /* atomic: bits set in nl_group_left_map() */
	nl_u32 reserve_target; /* chunks that populate was asked to keep */
	nl_u32 nr_reserve;     /* atomic: chunks in the groups' reserve words */
	nl_u32 sheaf_hint;     /* racy: word of the sheaf map where one was free */
	nl_u32 nr_large;       /* atomic: large objects in use */
	nl_u64 root;	       /* the users' own: nolock_heap_set_root() */
	nl_u64 refused;	       /* atomic: frees that belonged to no cache */
	nl_u64 large_allocs;   /* atomic */
	nl_u64 large_frees;    /* atomic */
	nl_u64 epoch;	       /* bumped by each nolockd that adopts the heap */
	nl_u64 dropped; /* atomic: objects freed twice or bad, found when a sheaf was flushed */
	nl_u64 deaths;	/* atomic: threads of clients that died, or were left behind by a fork */
	/* Atomic: objects in the hands of threads that a fork left behind; what destroyed caches have
	 * counted. Wraps. */
	nl_u64 lost;
	nl_u64 bugs; /* atomic: what debugging found and mended */
	nl_u64 deep; /* atomic: the sum of all barns' */
	nl_u64 bias; /* all ones while A-slots may be biased (slot.h), else 0 for good */
	nl_u64 pad2[1];
	struct nl_client client[NL_MAX_CLIENTS + 1]; /* [0] unused */
	nl_u32 run_from[NL_RUN_MAX + 1];	     /* run.h; [0] unused */
	nl_u32 run_top;				     /* atomic: none of these is above it */
	nl_u32 run_gives;			     /* atomic: wraps */
};

#define NL_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
NL_ASSERT_SIZE(struct nl_slot, 256);
NL_ASSERT_SIZE(struct nl_sheaf, 1024);
NL_ASSERT_SIZE(struct nl_barn, 64);
NL_ASSERT_SIZE(struct nl_cache, 128 + NL_MAX_NODES * 64);
NL_ASSERT_SIZE(struct nl_slab, 576);
NL_ASSERT_SIZE(struct nl_group, 10 * NL_PAGE);
#undef NL_ASSERT_SIZE

/* Typed pointers into the heap, from offsets. */
typedef struct nl_heap NLA nl_heap_t;
typedef struct nl_cache NLA nl_cache_t;
typedef struct nl_slot NLA nl_slot_t;
typedef struct nl_sheaf NLA nl_sheaf_t;
typedef struct nl_barn NLA nl_barn_t;
typedef struct nl_barn_list NLA nl_barn_list_t;
typedef struct nl_slab NLA nl_slab_t;
typedef struct nl_group NLA nl_group_t;
typedef nl_u64 NLA nl_word_t;
typedef nl_u32 NLA nl_tag_t;
typedef char NLA nl_byte_t;

#ifdef __bpf__
/*
 * Offsets of a damaged header as well: an atomic access across two cache lines is a fault of the
 * kernel on machines that detect it.
 */
#define nl_at(h, off) ((nl_byte_t *)(h) + ((off) & ~7ULL))
#else
#define nl_at(h, off) ((nl_byte_t *)(h) + (off))
#endif

NL_INLINE nl_cache_t *nl_cache(nl_heap_t *h, nl_u32 id)
{
	return (nl_cache_t *)nl_at(h, h->off_cache) + (id & (NL_MAX_CACHES - 1));
}

NL_INLINE nl_slot_t *nl_aslot(nl_heap_t *h, nl_u32 cpu, nl_u32 id)
{
	return (nl_slot_t *)nl_at(h, h->off_aslot) + ((nl_u64)cpu * NL_MAX_CACHES) +
	       (id & (NL_MAX_CACHES - 1));
}

NL_INLINE nl_slot_t *nl_rslot(nl_heap_t *h, nl_u32 cpu, nl_u32 id)
{
	return (nl_slot_t *)nl_at(h, h->off_rslot) + ((nl_u64)cpu * NL_MAX_CACHES) +
	       (id & (NL_MAX_CACHES - 1));
}

NL_INLINE nl_sheaf_t *nl_sheaf(nl_heap_t *h, nl_u32 index)
{
	return (nl_sheaf_t *)nl_at(h, h->off_sheaf) + index;
}

NL_INLINE nl_word_t *nl_sheaf_map(nl_heap_t *h)
{
	return (nl_word_t *)nl_at(h, h->off_smap);
}

NL_INLINE nl_word_t *nl_group_free_map(nl_heap_t *h, nl_u32 node)
{
	return (nl_word_t *)nl_at(h, h->off_gfree) + (nl_u64)node * ((h->nr_groups + 63) / 64);
}

/* Groups that somebody drew and could not open, when others had drawn since. */
NL_INLINE nl_word_t *nl_group_left_map(nl_heap_t *h)
{
	return nl_group_free_map(h, h->nr_nodes);
}

NL_INLINE nl_word_t *nl_group_part_map(nl_heap_t *h, nl_u32 node, nl_u32 id)
{
	return (nl_word_t *)nl_at(h, h->off_gpart) +
	       ((nl_u64)node * NL_MAX_CACHES + id) * ((h->nr_groups + 63) / 64);
}

NL_INLINE nl_tag_t *nl_tag(nl_heap_t *h, nl_u32 chunk)
{
	return (nl_tag_t *)nl_at(h, h->off_tag) + chunk;
}

NL_INLINE nl_group_t *nl_group(nl_heap_t *h, nl_u32 group)
{
	return (nl_group_t *)nl_at(h, h->off_group) + group;
}

NL_INLINE nl_slab_t *nl_slab(nl_heap_t *h, nl_u32 chunk)
{
	return &nl_group(h, chunk >> NL_GROUP_SHIFT)->slab[chunk & (NL_GROUP_CHUNKS - 1)];
}

/* How many nodes, whatever a damaged header says. */
NL_INLINE nl_u32 nl_nr_nodes(nl_heap_t *h)
{
	return h->nr_nodes < NL_MAX_NODES ? h->nr_nodes : NL_MAX_NODES;
}

/* The node that a group's memory is on; that of a slot's CPU. */
NL_INLINE nl_u32 nl_node_of(nl_heap_t *h, nl_u32 group)
{
	nl_u32 nodes = h->nr_nodes, node = 0;

	if (nl_unlikely(nodes > 1))
		node = nl_load(&nl_group(h, group)->node);
	return node < nodes && node < NL_MAX_NODES ? node : 0;
}

NL_INLINE nl_u32 nl_slot_node(nl_heap_t *h, nl_u32 cpu)
{
	nl_u32 nodes = h->nr_nodes, node = 0;

	if (nl_unlikely(nodes > 1))
		node = *(volatile nl_u8 NLA *)nl_at(h, h->off_node + cpu);
	return node < nodes && node < NL_MAX_NODES ? node : 0;
}

/* Groups that scans may look at. */
NL_INLINE nl_u32 nl_nr_open(nl_heap_t *h)
{
	nl_u32 n = nl_load_acquire(&h->nr_open);

	return n < NL_REACH_GROUPS ? n : NL_REACH_GROUPS;
}

/* Words of a bitmap over groups that can have a bit set. */
NL_INLINE nl_u32 nl_group_words(nl_heap_t *h)
{
	return (nl_nr_open(h) + 63) / 64;
}

/* Is it a chunk that may be looked up: a group's, and that group is open? */
NL_INLINE int nl_chunk_ok(nl_heap_t *h, nl_u64 chunk)
{
	return chunk >= h->first_chunk && chunk < (nl_u64)nl_nr_open(h) << NL_GROUP_SHIFT;
}

/* The address of object idx of a chunk; the same for all who share the heap. */
NL_INLINE nl_u64 nl_object(nl_heap_t *h, nl_u32 chunk, nl_u32 idx, nl_u32 size)
{
	return h->base + ((nl_u64)chunk << NL_CHUNK_SHIFT) + (nl_u64)idx * size;
}

/* Offset within a slab to object index: exact for every offset below 64 KiB and size >= 16. */
NL_INLINE nl_u32 nl_index(nl_u32 off, nl_u32 recip)
{
	return (nl_u32)(((nl_u64)off * recip) >> 32);
}

/* Which object is it? Its index, or -1 for an address where none starts. */
NL_INLINE nl_u32 nl_slab_index(nl_heap_t *h, nl_u32 id, nl_u64 obj)
{
	nl_cache_t *cache = nl_cache(h, id);
	nl_u32 off = (nl_u32)(obj - h->base) & (NL_CHUNK_SIZE - 1);
	nl_u32 idx = nl_index(off, cache->recip);

	if (idx >= cache->per_slab || idx >= NL_SLAB_WORDS * 64 || idx * cache->size != off)
		return ~0u;
	return idx;
}

/* Is the object free in its slab? Then it is in nobody's hands: who has an object finds it is not. */
NL_INLINE int nl_slab_is_free(nl_heap_t *h, nl_u32 chunk, nl_u32 idx)
{
	return (nl_load(&nl_slab(h, chunk)->free[idx / 64 & (NL_SLAB_WORDS - 1)]) >> (idx & 63)) &
	       1;
}

/* The group that an object of the heap lies in. */
NL_INLINE nl_u32 nl_group_at(nl_heap_t *h, nl_u64 obj)
{
	return (nl_u32)((obj - h->base) >> (NL_CHUNK_SHIFT + NL_GROUP_SHIFT));
}

/* The address of a sheaf's objects, as it stands in nl_slot.objs. */
NL_INLINE nl_u64 nl_sheaf_objs(nl_heap_t *h, nl_u32 sheaf)
{
	return h->base + h->off_sheaf + (nl_u64)(sheaf - 1) * sizeof(struct nl_sheaf) +
	       __builtin_offsetof(struct nl_sheaf, obj);
}

#endif /* NL_CORE_LAYOUT_H */
