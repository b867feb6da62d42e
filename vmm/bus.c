/* bus.c - port and memory-mapped I/O: finding the device and cutting accesses to the width that it takes.
 *
 * Ports are looked up in a 64 KiB index (one byte a port); MMIO regions are few and are searched. A guest OUT
 * to a device costs the lock, two loads and an indirect call.
 */
#include "vmm/machine_private.h"

#include <assert.h>

static uint32_t ones(unsigned size)
{
	return size >= 4 ? 0xffffffffu : (1u << (8 * size)) - 1u;
}

/* ------------------------------------------------------------------ ports */

void pio_register(struct machine *m, uint16_t first, uint16_t count, const struct io_ops *ops, void *opaque)
{
	assert(count && (uint32_t)first + count <= 0x10000u);
	assert(m->pio_count < PIO_REGIONS);
	m->pio[m->pio_count++] = (struct io_region){first, count, ops, opaque};
	for (uint32_t p = first; p < (uint32_t)first + count; p++) {
		assert(!m->pio_index[p]);
		m->pio_index[p] = (uint8_t)m->pio_count;
	}
}

static const struct io_region *pio_find(const struct machine *m, uint16_t port)
{
	unsigned i = m->pio_index[port];

	return i ? &m->pio[i - 1] : NULL;
}

/* The device takes this access as it is. */
static bool region_takes(const struct io_region *r, uint64_t addr, unsigned size)
{
	return size == 1 || (r->ops->wide && addr + size <= r->first + r->count);
}

static uint32_t region_read(const struct io_region *r, uint64_t addr, unsigned size)
{
	return r->ops->read ? r->ops->read(r->opaque, (uint32_t)(addr - r->first), size) & ones(size)
			    : ones(size);
}

static void region_write(const struct io_region *r, uint64_t addr, uint32_t value, unsigned size)
{
	if (r->ops->write)
		r->ops->write(r->opaque, (uint32_t)(addr - r->first), value & ones(size), size);
}

static void pio_note_unclaimed(const char *what, uint16_t port, unsigned size)
{
	if (log_on(LOG_DEV))
		log_printf(LOG_DEV, "%s of unclaimed port %#x size %u\n", what, port, size);
}

/* Each byte goes to whatever device answers at its port; the ports wrap at 64 Ki. */
static uint32_t pio_read_bytes(struct machine *m, uint16_t port, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		uint16_t p = (uint16_t)(port + i);
		const struct io_region *r = pio_find(m, p);
		value |= (r ? region_read(r, p, 1) : 0xffu) << (8 * i);
	}
	return value;
}

uint32_t pio_read(struct machine *m, uint16_t port, unsigned size)
{
	uint32_t value;

	machine_lock(m);
	const struct io_region *r = pio_find(m, port);
	if (r && region_takes(r, port, size))
		value = region_read(r, port, size);
	else if (!r && size == 1)
		value = 0xff;
	else
		value = pio_read_bytes(m, port, size);
	machine_unlock(m);
	if (!r)
		pio_note_unclaimed("read", port, size);
	return value;
}

void pio_write(struct machine *m, uint16_t port, uint32_t value, unsigned size)
{
	machine_lock(m);
	const struct io_region *r = pio_find(m, port);
	if (r && region_takes(r, port, size)) {
		region_write(r, port, value, size);
	} else {
		for (unsigned i = 0; i < size; i++) {
			uint16_t p = (uint16_t)(port + i);
			const struct io_region *b = pio_find(m, p);
			if (b)
				region_write(b, p, value >> (8 * i), 1);
		}
	}
	machine_unlock(m);
	if (!r)
		pio_note_unclaimed("write", port, size);
}

/* ------------------------------------------------------------------ MMIO */

void mmio_register(struct machine *m, uint64_t gpa, uint64_t len, const struct io_ops *ops, void *opaque)
{
	unsigned i = m->mmio_count++;

	assert(len && m->mmio_count <= MMIO_REGIONS);
	for (; i > 0 && m->mmio[i - 1].first > gpa; i--)
		m->mmio[i] = m->mmio[i - 1];
	m->mmio[i] = (struct io_region){gpa, len, ops, opaque};
	assert(i == 0 || m->mmio[i - 1].first + m->mmio[i - 1].count <= gpa);
	assert(i + 1 == m->mmio_count || gpa + len <= m->mmio[i + 1].first);
}

static const struct io_region *mmio_find(const struct machine *m, uint64_t gpa)
{
	for (unsigned i = 0; i < m->mmio_count && m->mmio[i].first <= gpa; i++)
		if (gpa - m->mmio[i].first < m->mmio[i].count)
			return &m->mmio[i];
	return NULL;
}

static uint32_t mmio_read_piece(struct machine *m, uint64_t gpa, unsigned size)
{
	const struct io_region *r = mmio_find(m, gpa);

	if (r && region_takes(r, gpa, size))
		return region_read(r, gpa, size);
	if (size == 1)
		return 0xff;
	uint32_t value = 0;
	for (unsigned i = 0; i < size; i++)
		value |= mmio_read_piece(m, gpa + i, 1) << (8 * i);
	return value;
}

static void mmio_write_piece(struct machine *m, uint64_t gpa, uint32_t value, unsigned size)
{
	const struct io_region *r = mmio_find(m, gpa);

	if (r && region_takes(r, gpa, size)) {
		region_write(r, gpa, value, size);
		return;
	}
	for (unsigned i = 0; i < size && size > 1; i++)
		mmio_write_piece(m, gpa + i, value >> (8 * i), 1);
}

uint64_t mmio_read(struct machine *m, uint64_t gpa, unsigned size)
{
	uint64_t value;

	machine_lock(m);
	value = mmio_read_piece(m, gpa, size < 4 ? size : 4);
	if (size == 8)
		value |= (uint64_t)mmio_read_piece(m, gpa + 4, 4) << 32;
	machine_unlock(m);
	return value;
}

void mmio_write(struct machine *m, uint64_t gpa, uint64_t value, unsigned size)
{
	machine_lock(m);
	mmio_write_piece(m, gpa, (uint32_t)value, size < 4 ? size : 4);
	if (size == 8)
		mmio_write_piece(m, gpa + 4, (uint32_t)(value >> 32), 4);
	machine_unlock(m);
}
