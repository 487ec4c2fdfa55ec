// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
// Marks the blocks of one disk that a write, a discard or a write of zeros has changed.
//
// Marked on completion: a block marked before its data is on the medium could be read too early and taken for done.
// Some completions are never seen here: a kernel may run no programs in the interrupt of a completion. So each
// request is noted when it is issued, in the word of its tag, and wiped when its completion was seen. What is
// still noted when the tag is used again, or when user space settles a quiet disk, is marked then.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define SECTOR_TO_BLOCK 3
#define OP_MASK 0xff
#define OP_READ 0
#define SLOTS 16384
#define COUNT_BITS 21
#define SALT_BITS 7
#define NO_SECTOR (~0ULL)

struct gendisk { int major; int first_minor; } __attribute__((preserve_access_index));
struct request_queue { struct gendisk *disk; } __attribute__((preserve_access_index));
struct blk_mq_hw_ctx { unsigned int queue_num; } __attribute__((preserve_access_index));
struct request {
	struct request_queue *q;
	struct blk_mq_hw_ctx *mq_hctx;
	unsigned int cmd_flags;
	int tag;
	unsigned int __data_len;
	__u64 __sector;
} __attribute__((preserve_access_index));

const volatile __u32 disk_major = 0;
const volatile __u32 disk_minor = 0;
const volatile __u64 word_count = 0;

#define WORDS(name_, entries_) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, entries_); \
		__type(key, __u32); \
		__type(value, __u64); \
	} name_ SEC(".maps")

WORDS(changed, 1);      // one bit per 4 KiB
WORDS(pending, 1);      // taken by user space and not yet acknowledged; kept here only to be pinned
WORDS(in_flight, SLOTS);
WORDS(identity, 8);     // of user space: which disk and boot this is

struct span { __u64 first; __u64 end; };

static long mark_word(__u32 index, struct span *span)
{
	__u64 word = (span->first >> 6) + index;
	__u64 from = word << 6, mask = ~0ULL;
	__u32 key = word;
	__u64 *bits;

	if (word >= word_count)
		return 1;
	if (span->first > from)
		mask &= ~0ULL << ((span->first - from) & 63);
	if (span->end < from + 64)
		mask &= (1ULL << ((span->end - from) & 63)) - 1;
	bits = bpf_map_lookup_elem(&changed, &key);
	if (!bits)
		return 1;
	__sync_fetch_and_or(bits, mask);
	return 0;
}

static __always_inline void mark(__u64 first, __u64 end)
{
	struct span span = { .first = first, .end = end };

	if (end <= first)
		return;
	if (((end - 1) >> 6) == (first >> 6))
		mark_word(0, &span);
	else
		bpf_loop(((end - 1) >> 6) - (first >> 6) + 1, mark_word, &span, 0);
}

static __always_inline void mark_note(__u64 note)
{
	__u64 first = note >> (COUNT_BITS + SALT_BITS);

	mark(first, first + ((note >> SALT_BITS) & ((1ULL << COUNT_BITS) - 1)));
}

static __always_inline int ours(struct request *rq)
{
	struct gendisk *disk = rq->q->disk;

	return disk && disk->major == disk_major && disk->first_minor == disk_minor;
}

static __always_inline __u64 *slot(struct request *rq)
{
	__u32 key = (rq->mq_hctx->queue_num * 1024 + rq->tag) & (SLOTS - 1);

	return bpf_map_lookup_elem(&in_flight, &key);
}

static __always_inline int issued(struct request *rq)
{
	__u64 sector = rq->__sector, note = 0, old, first, end;
	__u64 *word;

	if (!ours(rq) || !rq->__data_len || sector == NO_SECTOR)
		return 0;
	word = slot(rq);
	if (!word)
		return 0;
	if ((rq->cmd_flags & OP_MASK) != OP_READ) {
		first = sector >> SECTOR_TO_BLOCK;
		end = (sector + (rq->__data_len >> 9) + 7) >> SECTOR_TO_BLOCK;
		note = first << (COUNT_BITS + SALT_BITS) | (end - first) << SALT_BITS |
		       (bpf_ktime_get_ns() >> 10 & ((1 << SALT_BITS) - 1));
	}
	old = __sync_lock_test_and_set(word, note);
	if (old)
		mark_note(old);
	return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(issued_request, struct request *rq)
{
	return issued(rq);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(issued_queue_request, struct request_queue *q, struct request *rq)
{
	return issued(rq);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(completed, struct request *rq, int error, unsigned int bytes)
{
	__u64 sector = rq->__sector;
	__u64 *word;

	if ((rq->cmd_flags & OP_MASK) == OP_READ || !bytes || sector == NO_SECTOR || !ours(rq))
		return 0;
	mark(sector >> SECTOR_TO_BLOCK, (sector + (bytes >> 9) + 7) >> SECTOR_TO_BLOCK);
	word = slot(rq);
	if (word && bytes >= rq->__data_len)
		__sync_lock_test_and_set(word, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
