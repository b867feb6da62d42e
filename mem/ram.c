/* ram.c - guest RAM (one memfd, mapped whole), the way to MMIO, and guest-physical reads and writes.
 *
 * The memfd's offset is the guest-physical address, so that windows map it without arithmetic. The pages
 * behind the video hole exist in the file but nobody can reach them: gfn_is_ram says no.
 */
#include "mem/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_MAX (3ull << 30)

static_assert(offsetof(struct mem, tlb) == 0, "the inline accessors of mem.h find the TLB at the start");

void *map_anonymous(uint64_t bytes)
{
	void *p =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void unmap_anonymous(void *p, uint64_t bytes)
{
	if (p)
		munmap(p, bytes);
}

struct mem *mem_create(uint64_t ram_bytes, char *err, size_t errlen)
{
	struct mem *m;

	if (ram_bytes == 0 || ram_bytes % PAGE_SIZE != 0 || ram_bytes > RAM_MAX) {
		snprintf(err, errlen, "guest memory of %llu bytes: must be a multiple of 4096, at most 3 GiB",
			 (unsigned long long)ram_bytes);
		return NULL;
	}
	m = map_anonymous(sizeof *m);
	if (!m) {
		snprintf(err, errlen, "guest memory: %s", strerror(errno));
		return NULL;
	}
	m->ram_bytes = ram_bytes;
	m->ram_pages = (uint32_t)(ram_bytes >> PAGE_SHIFT);
	m->fd = memfd_create("bt86-ram", MFD_CLOEXEC);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)ram_bytes) < 0)
		goto fail;
	m->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->ram == MAP_FAILED) {
		m->ram = NULL;
		goto fail;
	}
	m->trace = map_anonymous(m->ram_pages);
	if (!m->trace)
		goto fail;
	return m;
fail:
	snprintf(err, errlen, "guest memory of %llu bytes: %s", (unsigned long long)ram_bytes,
		 strerror(errno));
	mem_destroy(m);
	return NULL;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	windows_destroy(m);
	unmap_anonymous(m->trace, m->ram_pages);
	if (m->ram)
		munmap(m->ram, m->ram_bytes);
	if (m->fd >= 0)
		close(m->fd);
	munmap(m, sizeof *m);
}

void mem_set_ops(struct mem *m, const struct mem_ops *ops, void *opaque)
{
	m->ops = *ops;
	m->opaque = opaque;
}

uint64_t mem_ram_bytes(const struct mem *m)
{
	return m->ram_bytes;
}

uint8_t *mem_ptr(struct mem *m, uint64_t gpa, uint64_t len)
{
	if (gpa >= m->ram_bytes || len > m->ram_bytes - gpa)
		return NULL;
	if (gpa < HOLE_END && gpa + (len ? len : 1) > HOLE_START)
		return NULL;
	return m->ram + gpa;
}

/* The largest naturally aligned piece, at most 4 bytes, that begins at gpa and fits in len. */
static unsigned mmio_piece(uint64_t gpa, uint64_t len)
{
	unsigned n = 4;

	while (n > len || gpa % n != 0)
		n /= 2;
	return n;
}

void mmio_load(struct mem *m, uint64_t gpa, uint8_t *buf, uint64_t len)
{
	while (len) {
		unsigned n = mmio_piece(gpa, len);
		m->stats.mmio_accesses++;
		uint64_t v = m->ops.mmio_read ? m->ops.mmio_read(m->opaque, gpa, n) : ~0ull;

		copy_bytes(buf, &v, n);
		gpa += n;
		buf += n;
		len -= n;
	}
}

void mmio_store(struct mem *m, uint64_t gpa, const uint8_t *buf, uint64_t len)
{
	while (len) {
		unsigned n = mmio_piece(gpa, len);
		uint64_t v = 0;

		m->stats.mmio_accesses++;
		copy_bytes(&v, buf, n);
		if (m->ops.mmio_write)
			m->ops.mmio_write(m->opaque, gpa, v, n);
		gpa += n;
		buf += n;
		len -= n;
	}
}

static bool differs(const uint8_t *a, const uint8_t *b, unsigned len)
{
	while (len && *a == *b)
		a++, b++, len--;
	return len;
}

void ram_store(struct mem *m, uint64_t gpa, const void *buf, unsigned len)
{
	uint8_t *trace = &m->trace[gpa >> PAGE_SHIFT];

	assert(gpa_is_ram(m, gpa) && (gpa & ~PAGE_MASK) + len <= PAGE_SIZE);
	if (m->store_log && !m->store_log(m->store_log_opaque, gpa, len, false))
		return;
	if (!*trace) {
		copy_bytes(m->ram + gpa, buf, len);
		return;
	}
	m->stats.traced_stores++;
	const bool changes = *trace & TRACE_CODE && differs(m->ram + gpa, buf, len);
	if (*trace & TRACE_PT)
		pt_store(m, gpa, buf, len);
	else
		copy_bytes(m->ram + gpa, buf, len);
	if (*trace & TRACE_DIRTY)
		mem_trace_remove(m, gpa, TRACE_DIRTY);
	if (changes && m->ops.code_written)
		m->ops.code_written(m->opaque, gpa, len);
}

/* Bytes of [gpa, gpa + len) that lie in the page of gpa. */
static unsigned page_piece(uint64_t gpa, uint64_t len)
{
	uint64_t room = PAGE_SIZE - (gpa & (PAGE_SIZE - 1));

	return (unsigned)(len < room ? len : room);
}

void mem_phys_read(struct mem *m, uint64_t gpa, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	while (len) {
		unsigned n = page_piece(gpa, len);

		if (gpa_is_ram(m, gpa))
			copy_bytes(p, m->ram + gpa, n);
		else
			mmio_load(m, gpa, p, n);
		gpa += n;
		p += n;
		len -= n;
	}
}

void mem_phys_write(struct mem *m, uint64_t gpa, const void *buf, uint64_t len)
{
	const uint8_t *p = buf;

	while (len) {
		unsigned n = page_piece(gpa, len);

		if (gpa_is_ram(m, gpa))
			ram_store(m, gpa, p, n);
		else
			mmio_store(m, gpa, p, n);
		gpa += n;
		p += n;
		len -= n;
	}
}

static bool any_trace(const struct mem *m, uint64_t gpa, uint64_t len)
{
	for (uint64_t gfn = gpa >> PAGE_SHIFT; gfn <= (gpa + len - 1) >> PAGE_SHIFT; gfn++)
		if (m->trace[gfn])
			return true;
	return false;
}

void mem_load(struct mem *m, uint64_t gpa, const void *buf, uint64_t len)
{
	const uint8_t *p = buf;

	/* Into the file and not through the mapping: no page faults, none is cleared before it is filled. */
	while (len && mem_ptr(m, gpa, len) && !m->store_log && !any_trace(m, gpa, len)) {
		const ssize_t n = pwrite(m->fd, p, len, (off_t)gpa);

		if (n <= 0)
			break;
		gpa += (uint64_t)n;
		p += n;
		len -= (uint64_t)n;
	}
	mem_phys_write(m, gpa, p, len);
}

void mem_set_store_log(struct mem *m, mem_store_log_fn *fn, void *opaque)
{
	m->store_log = fn;
	m->store_log_opaque = opaque;
	tlb_flush(m);
}

void mem_forget_tlb(struct mem *m)
{
	tlb_flush(m);
}

const struct mem_stats *mem_get_stats(const struct mem *m)
{
	return &m->stats;
}
