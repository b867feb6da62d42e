/* string.c - MOVS CMPS SCAS LODS STOS INS OUTS, with and without repeat prefixes.
 *
 * A repeated instruction commits after each element, so a fault or an interrupt finds the registers where the
 * remaining work starts. One call of a handler does a bounded number of elements and leaves EIP on the
 * instruction when more remain; the loop above looks at events in between. MOVS and STOS upwards in flat
 * segments go by the page, with the host's own string instruction so that overlapping operands behave.
 *
 * An instruction that overwrites itself finishes what it has begun, as on silicon, up to that bound: from
 * there on the new bytes count, as after an interrupt.
 */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

#define REP_BUDGET  1024u
#define BULK_BUDGET 16u /* pages */

typedef int (*element_fn)(struct vcpu *c, const struct insn *i, unsigned size);

static unsigned element_size(const struct insn *i)
{
	return i->opcode & 1 ? i->opsize : 1;
}

static uint32_t index_get(const struct vcpu *c, const struct insn *i, unsigned r)
{
	return i->adsize == 4 ? c->gpr[r] : c->gpr[r] & 0xffffu;
}

static void index_step(struct vcpu *c, const struct insn *i, unsigned r, unsigned size)
{
	set_reg(c, r, c->df ? c->gpr[r] - size : c->gpr[r] + size, i->adsize);
}

static bool repeated(const struct insn *i)
{
	return i->prefix & (INSN_REP | INSN_REPNE);
}

/* until: 0, or FL_ZF when the instruction compares and ends on a mismatch (REPE) or match (REPNE). */
static int repeat(struct vcpu *c, const struct insn *i, element_fn element, uint32_t until)
{
	unsigned size = element_size(i), budget = interp_stepping(c) ? 1 : REP_BUDGET;
	uint32_t n;

	if (!repeated(i))
		return element(c, i, size);
	for (n = index_get(c, i, ECX); n != 0; budget--) {
		if (budget == 0)
			return INSN_JUMPED;
		if (element(c, i, size))
			return -1;
		set_reg(c, ECX, --n, i->adsize);
		if (until && !(c->flags & FL_ZF) == !(i->prefix & INSN_REPNE))
			break;
	}
	return INSN_NEXT;
}

static int read_element(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, uint32_t *v)
{
	uint8_t b;
	uint16_t w;

	switch (size) {
	case 1:
		if (interp_read8(c, seg, off, &b))
			return -1;
		*v = b;
		return 0;
	case 2:
		if (interp_read16(c, seg, off, &w))
			return -1;
		*v = w;
		return 0;
	default:
		return interp_read32(c, seg, off, v);
	}
}

static int write_element(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, uint32_t v)
{
	switch (size) {
	case 1:
		return interp_write8(c, seg, off, (uint8_t)v);
	case 2:
		return interp_write16(c, seg, off, (uint16_t)v);
	default:
		return interp_write32(c, seg, off, v);
	}
}

static void set_acc(struct vcpu *c, unsigned size, uint32_t v)
{
	if (size == 1)
		set_reg8(c, EAX, (uint8_t)v);
	else
		set_reg(c, EAX, v, size);
}

static void compare(struct vcpu *c, uint32_t a, uint32_t b, unsigned size)
{
	if (size == 1)
		alu_cmp8(&c->flags, (uint8_t)a, (uint8_t)b);
	else if (size == 2)
		alu_cmp16(&c->flags, (uint16_t)a, (uint16_t)b);
	else
		alu_cmp32(&c->flags, a, b);
}

/* ------------------------------------------------------------------ whole pages at a time */

/* Part of a page that an operand lies on: its host address, how many bytes, whether it may be stored to
 * there. */
struct piece {
	uint8_t *p;
	uint32_t bytes;
	bool plain;
};

/* Finds up to `bytes` bytes at seg:off, in a flat segment, on a page of RAM. 1, 0 if it cannot be had, -1
 * with #PF. */
static int piece_find(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, unsigned acc,
		      struct piece *w)
{
	const struct seg *s = &c->seg[seg];
	const uint32_t lin = s->base + off, left = PAGE_SIZE - (lin & ~PAGE_MASK),
		       tag = (lin & PAGE_MASK) | 1u;
	const struct tlb_entry *t = interp_tlb(c, lin);

	if (s->limit != 0xffffffffu || (s->attr & (SEG_P | SEG_CODE | SEG_RW | SEG_DC)) != (SEG_P | SEG_RW))
		return 0;
	if (left < size || off > 0u - PAGE_SIZE) /* an element on two pages; the end of the segment is near */
		return 0;
	if ((acc & ACC_WRITE ? t->wtag : t->rtag) != tag && mem_probe(c, lin, size, acc | interp_acc(c)))
		return -1;
	if (t->rtag != tag)
		return 0;
	w->p = (uint8_t *)(t->add + lin);
	w->plain = t->wtag == tag;
	if (w->bytes > left)
		w->bytes = left;
	return 1;
}

static bool bulk_allowed(const struct vcpu *c, const struct insn *i)
{
	return repeated(i) && i->adsize == 4 && !c->df && !(c->sysflags & FL_AC) && !interp_stepping(c);
}

static uint32_t bulk_bytes(const struct vcpu *c, unsigned size)
{
	return c->gpr[ECX] > PAGE_SIZE ? PAGE_SIZE : c->gpr[ECX] * size;
}

static void host_movs(uint8_t *to, const uint8_t *from, uint64_t n, unsigned size)
{
	if (size == 1)
		__asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	else if (size == 2)
		__asm__ volatile("rep movsw" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	else
		__asm__ volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void host_stos(uint8_t *to, uint32_t value, uint64_t n, unsigned size)
{
	if (size == 1)
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
	else if (size == 2)
		__asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(value) : "memory");
	else
		__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

/* One piece; 1 if there was one, 0, or -1 with #PF. A page that is watched gets it in one store. Where the
 * operands overlap there, the elements have to be copied one by one. */
static int bulk_movs(struct vcpu *c, const struct insn *i, unsigned size)
{
	struct piece from = {.bytes = bulk_bytes(c, size)}, to;
	int r = piece_find(c, i->seg, c->gpr[ESI], size, ACC_READ, &from);

	if (r <= 0)
		return r;
	to.bytes = from.bytes;
	r = piece_find(c, ES, c->gpr[EDI], size, ACC_WRITE, &to);
	if (r <= 0)
		return r;
	const uint32_t n = to.bytes / size, bytes = n * size;
	if (to.plain)
		host_movs(to.p, from.p, n, size);
	else if ((uintptr_t)to.p - (uintptr_t)from.p < bytes && to.p != from.p)
		return 0;
	else if (mem_write(c, c->seg[ES].base + c->gpr[EDI], from.p, bytes, interp_acc(c)))
		return -1;
	c->gpr[ESI] += bytes;
	c->gpr[EDI] += bytes;
	c->gpr[ECX] -= n;
	return 1;
}

static int bulk_stos(struct vcpu *c, unsigned size)
{
	struct piece to = {.bytes = bulk_bytes(c, size)};
	const int r = piece_find(c, ES, c->gpr[EDI], size, ACC_WRITE, &to);
	uint8_t image[PAGE_SIZE]; /* deliberately not cleared */

	if (r <= 0)
		return r;
	const uint32_t n = to.bytes / size, bytes = n * size;
	host_stos(to.plain ? to.p : image, c->gpr[EAX], n, size);
	if (!to.plain && mem_write(c, c->seg[ES].base + c->gpr[EDI], image, bytes, interp_acc(c)))
		return -1;
	c->gpr[EDI] += bytes;
	c->gpr[ECX] -= n;
	return 1;
}

/* ------------------------------------------------------------------ elements */

static int movs(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint32_t v;

	if (read_element(c, i->seg, index_get(c, i, ESI), size, &v) ||
	    write_element(c, ES, index_get(c, i, EDI), size, v))
		return -1;
	index_step(c, i, ESI, size);
	index_step(c, i, EDI, size);
	return 0;
}

static int cmps(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint32_t a, b;

	if (read_element(c, i->seg, index_get(c, i, ESI), size, &a) ||
	    read_element(c, ES, index_get(c, i, EDI), size, &b))
		return -1;
	compare(c, a, b, size);
	index_step(c, i, ESI, size);
	index_step(c, i, EDI, size);
	return 0;
}

static int scas(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint32_t v;

	if (read_element(c, ES, index_get(c, i, EDI), size, &v))
		return -1;
	compare(c, c->gpr[EAX], v, size);
	index_step(c, i, EDI, size);
	return 0;
}

static int lods(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint32_t v;

	if (read_element(c, i->seg, index_get(c, i, ESI), size, &v))
		return -1;
	set_acc(c, size, v);
	index_step(c, i, ESI, size);
	return 0;
}

static int stos(struct vcpu *c, const struct insn *i, unsigned size)
{
	if (write_element(c, ES, index_get(c, i, EDI), size, c->gpr[EAX]))
		return -1;
	index_step(c, i, EDI, size);
	return 0;
}

/* The destination is opened before the port is read: a fault must not lose data. */
static int ins(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint16_t port = reg16(c, EDX);
	uint32_t lin, v;

	if (interp_rmw(c, ES, index_get(c, i, EDI), size, &lin))
		return -1;
	v = pio_read(c->machine, port, size);
	if (mem_write(c, lin, &v, size, interp_acc(c)))
		return -1;
	index_step(c, i, EDI, size);
	return 0;
}

static int outs(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint16_t port = reg16(c, EDX);
	uint32_t v;

	if (read_element(c, i->seg, index_get(c, i, ESI), size, &v))
		return -1;
	pio_write(c->machine, port, v, size);
	index_step(c, i, ESI, size);
	return 0;
}

int op_movs(struct vcpu *c, const struct insn *i)
{
	int r = bulk_allowed(c, i);

	for (unsigned pieces = 0; r > 0 && c->gpr[ECX] && pieces < BULK_BUDGET; pieces++)
		r = bulk_movs(c, i, element_size(i));
	return r < 0 ? -1 : repeat(c, i, movs, 0);
}

int op_stos(struct vcpu *c, const struct insn *i)
{
	int r = bulk_allowed(c, i);

	for (unsigned pieces = 0; r > 0 && c->gpr[ECX] && pieces < BULK_BUDGET; pieces++)
		r = bulk_stos(c, element_size(i));
	return r < 0 ? -1 : repeat(c, i, stos, 0);
}

int op_cmps(struct vcpu *c, const struct insn *i)
{
	return repeat(c, i, cmps, FL_ZF);
}

int op_scas(struct vcpu *c, const struct insn *i)
{
	return repeat(c, i, scas, FL_ZF);
}

int op_lods(struct vcpu *c, const struct insn *i)
{
	return repeat(c, i, lods, 0);
}

/* Whether the port may be used is asked even when nothing is repeated. */
int op_ins(struct vcpu *c, const struct insn *i)
{
	return io_check(c, reg16(c, EDX), element_size(i)) ? -1 : repeat(c, i, ins, 0);
}

int op_outs(struct vcpu *c, const struct insn *i)
{
	return io_check(c, reg16(c, EDX), element_size(i)) ? -1 : repeat(c, i, outs, 0);
}
