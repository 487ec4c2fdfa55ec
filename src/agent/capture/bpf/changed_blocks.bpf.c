// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
// Marks the blocks of one disk that a write, a discard or a write of zeros has changed.
//
// Marked on completion: a block marked before its data is on the medium could be read too early and taken for done.
// Some completions are never seen here: the kernel does not run a program inside itself, and an interrupt may
// complete a request while the program runs for another one. So each request is noted when it is issued, in the
// word of its tag, and wiped when its completion was seen. What is still noted when the tag is used again, or
// when user space looks, is marked then.
//
// Disks without requests (device mapper, md, zram) are seen by their bios. A driver may move the position of a bio
// on, and change its device, before it completes; so a bio is noted when it is queued, under its address, and what
// was noted is marked when it completes.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define SECTOR_TO_BLOCK 3
#define OP_MASK 0xff
#define OP_READ 0
#define OP_DISCARD 3
// Ranges in one discard: 256 for NVMe, and virtio takes fewer.
#define RANGES_MAX 256
#define COUNT_BITS 21
#define SALT_BITS 7
// Set by user space in a note that it has seen.
#define SEEN (1ULL << (SALT_BITS - 1))
#define NO_SECTOR (~0ULL)
// Places at which a bio may be noted.
#define PROBES 16
// Word of `identity` that counts what could not be noted: user space then compares everything.
#define OVERFLOWS 7

struct gendisk { int major; int first_minor; } __attribute__((preserve_access_index));
struct request_queue { struct gendisk *disk; } __attribute__((preserve_access_index));
struct blk_mq_hw_ctx { unsigned int queue_num; } __attribute__((preserve_access_index));
struct bvec_iter { __u64 bi_sector; unsigned int bi_size; } __attribute__((preserve_access_index));
struct block_device { struct gendisk *bd_disk; } __attribute__((preserve_access_index));
struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	unsigned int bi_opf;
	struct bvec_iter bi_iter;
} __attribute__((preserve_access_index));
struct request {
	struct request_queue *q;
	struct blk_mq_hw_ctx *mq_hctx;
	unsigned int cmd_flags;
	int tag;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
} __attribute__((preserve_access_index));

const volatile __u32 disk_major = 0;
const volatile __u32 disk_minor = 0;
const volatile __u64 word_count = 0;
// Requests: slot = queue << tag_bits | tag. Bios: pairs of address and note.
const volatile __u32 tag_bits = 0;
const volatile __u32 slot_mask = 0;

#define WORDS(name_, entries_) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, entries_); \
		__type(key, __u32); \
		__type(value, __u64); \
	} name_ SEC(".maps")

WORDS(changed, 1);      // one bit per 4 KiB
WORDS(summary, 1);      // one bit per word of `changed`: a large disk is not looked through for few bits
WORDS(pending, 1);      // taken by user space and not yet acknowledged; kept here only to be pinned
WORDS(in_flight, 1);
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
	// After the bits: user space clears this first and then takes them, so one of the two sees the other.
	key = word >> 6;
	bits = bpf_map_lookup_elem(&summary, &key);
	if (bits && !(*(volatile __u64 *)bits & 1ULL << (word & 63)))
		__sync_fetch_and_or(bits, 1ULL << (word & 63));
	return 0;
}

// The largest discard is 4 GiB - 512: 16384 words.
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

static __always_inline __u64 note_of(__u64 sector, __u32 bytes)
{
	__u64 first = sector >> SECTOR_TO_BLOCK;
	__u64 end = (sector + (bytes >> 9) + 7) >> SECTOR_TO_BLOCK;

	// The salt tells two notes of the same blocks apart.
	return first << (COUNT_BITS + SALT_BITS) | (end - first) << SALT_BITS | (bpf_ktime_get_ns() >> 10 & (SEEN - 1));
}

static __always_inline void mark_note(__u64 note)
{
	__u64 first = note >> (COUNT_BITS + SALT_BITS);

	mark(first, first + ((note >> SALT_BITS) & ((1ULL << COUNT_BITS) - 1)));
}

static __always_inline int is_ours(struct gendisk *disk)
{
	return disk && disk->major == disk_major && disk->first_minor == disk_minor;
}

static __always_inline __u64 *slot(struct request *rq)
{
	__u32 key = ((rq->mq_hctx->queue_num << tag_bits) + rq->tag) & slot_mask;

	return bpf_map_lookup_elem(&in_flight, &key);
}

static __always_inline void count_gap(void)
{
	__u32 key = OVERFLOWS;
	__u64 *word = bpf_map_lookup_elem(&identity, &key);

	if (word)
		__sync_fetch_and_add(word, 1);
}

// Discards that do not touch each other are sent as one request; its position is that of the first only.
static __always_inline int is_scattered(struct request *rq)
{
	return (rq->cmd_flags & OP_MASK) == OP_DISCARD && rq->bio && rq->bio->bi_next;
}

struct walk { struct bio *bio; __u64 from; __u64 to; };

// In a callback, so that the verifier looks at one step and not at all of them.
static long next_range(__u32 index, struct walk *walk)
{
	struct bio *bio = walk->bio;
	__u64 sector, end;

	if (!bio)
		return 1;
	sector = BPF_CORE_READ(bio, bi_iter.bi_sector);
	end = sector + (BPF_CORE_READ(bio, bi_iter.bi_size) >> 9);
	walk->from = sector < walk->from ? sector : walk->from;
	walk->to = end > walk->to ? end : walk->to;
	walk->bio = BPF_CORE_READ(bio, bi_next);
	return 0;
}

static long mark_range(__u32 index, struct walk *walk)
{
	struct bio *bio = walk->bio;
	__u64 sector;

	if (!bio)
		return 1;
	sector = BPF_CORE_READ(bio, bi_iter.bi_sector);
	mark(sector >> SECTOR_TO_BLOCK, (sector + (BPF_CORE_READ(bio, bi_iter.bi_size) >> 9) + 7) >> SECTOR_TO_BLOCK);
	walk->bio = BPF_CORE_READ(bio, bi_next);
	return 0;
}

// One note over all ranges of such a request; 0 when they lie too far apart.
static __always_inline __u64 note_scattered(struct request *rq)
{
	struct walk walk = { .bio = BPF_CORE_READ(rq, bio), .from = ~0ULL };
	__u64 first, end;

	bpf_loop(RANGES_MAX, next_range, &walk, 0);
	first = walk.from >> SECTOR_TO_BLOCK;
	end = (walk.to + 7) >> SECTOR_TO_BLOCK;
	if (walk.bio || end <= first || end - first >= 1ULL << COUNT_BITS)
		return 0;
	return first << (COUNT_BITS + SALT_BITS) | (end - first) << SALT_BITS |
	       (bpf_ktime_get_ns() >> 10 & (SEEN - 1));
}

static __always_inline void mark_scattered(struct request *rq)
{
	struct walk walk = { .bio = BPF_CORE_READ(rq, bio) };

	bpf_loop(RANGES_MAX, mark_range, &walk, 0);
	if (walk.bio)
		count_gap();
}

static __always_inline int issued(struct request *rq)
{
	__u64 sector = rq->__sector, note = 0, old;
	__u64 *word;

	if (!is_ours(rq->q->disk) || !rq->__data_len || sector == NO_SECTOR)
		return 0;
	word = slot(rq);
	if (!word)
		return 0;
	if ((rq->cmd_flags & OP_MASK) != OP_READ)
		note = is_scattered(rq) ? note_scattered(rq) : note_of(sector, rq->__data_len);
	old = __sync_lock_test_and_set(word, note);
	if (old)
		mark_note(old);
	// Too far apart for a note: marked now as well as on completion, which may be missed.
	if (!note && is_scattered(rq))
		mark_scattered(rq);
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

	if ((rq->cmd_flags & OP_MASK) == OP_READ || !bytes || sector == NO_SECTOR || !is_ours(rq->q->disk))
		return 0;
	if (is_scattered(rq))
		mark_scattered(rq);
	else
		mark(sector >> SECTOR_TO_BLOCK, (sector + (bytes >> 9) + 7) >> SECTOR_TO_BLOCK);
	word = slot(rq);
	if (word && bytes >= rq->__data_len)
		__sync_lock_test_and_set(word, 0);
	return 0;
}

// The first place of an address; places come in pairs of words.
static __always_inline __u32 place_of(__u64 address)
{
	return (__u32)((address >> 6) * 0x9E3779B97F4A7C15ULL >> 40) << 1;
}

static __always_inline int queued(struct bio *bio, __u64 address)
{
	__u32 op = bio->bi_opf & OP_MASK, bytes = bio->bi_iter.bi_size, place = place_of(address), key, index;
	__u64 sector = bio->bi_iter.bi_sector, note, old;
	__u64 *word;

	if (op == OP_READ || !bytes || sector == NO_SECTOR || !is_ours(bio->bi_bdev->bd_disk))
		return 0;
	note = note_of(sector, bytes);
	// Noted still from an earlier life of this address: its completion was not seen.
	for (index = 0; index < PROBES; index++) {
		key = (place + 2 * index) & slot_mask;
		word = bpf_map_lookup_elem(&in_flight, &key);
		if (!word || *word != address)
			continue;
		key |= 1;
		word = bpf_map_lookup_elem(&in_flight, &key);
		if (!word)
			continue;
		old = __sync_lock_test_and_set(word, note);
		if (old)
			mark_note(old);
		return 0;
	}
	for (index = 0; index < PROBES; index++) {
		key = (place + 2 * index) & slot_mask;
		word = bpf_map_lookup_elem(&in_flight, &key);
		if (!word || *word || __sync_val_compare_and_swap(word, 0, address))
			continue;
		key |= 1;
		word = bpf_map_lookup_elem(&in_flight, &key);
		if (word)
			__sync_lock_test_and_set(word, note);
		return 0;
	}
	count_gap();
	return 0;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(queued_bio, struct bio *bio)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &ctx[0]);
	return queued(bio, address);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(queued_queue_bio, struct request_queue *q, struct bio *bio)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &ctx[1]);
	return queued(bio, address);
}

SEC("tp_btf/block_bio_complete")
int BPF_PROG(completed_bio, struct request_queue *q, struct bio *bio)
{
	__u64 address = 0;
	__u64 *word, *value;
	__u32 place, key, index;

	if ((bio->bi_opf & OP_MASK) == OP_READ)
		return 0;
	bpf_probe_read_kernel(&address, sizeof(address), &ctx[1]);
	place = place_of(address);
	for (index = 0; index < PROBES; index++) {
		key = (place + 2 * index) & slot_mask;
		word = bpf_map_lookup_elem(&in_flight, &key);
		if (!word || *word != address)
			continue;
		key |= 1;
		value = bpf_map_lookup_elem(&in_flight, &key);
		if (!value)
			continue;
		// Marked before it is wiped: user space that looks in between finds it in one of the two.
		mark_note(*value);
		__sync_lock_test_and_set(value, 0);
		__sync_lock_test_and_set(word, 0);
		return 0;
	}
	// Queued before the programs were attached: where it lies is told by the bio itself, if the driver left it so.
	if (bio->bi_iter.bi_size && bio->bi_bdev && is_ours(bio->bi_bdev->bd_disk))
		mark_note(note_of(bio->bi_iter.bi_sector, bio->bi_iter.bi_size));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
