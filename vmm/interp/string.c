/* string.c - MOVS CMPS SCAS LODS STOS INS OUTS, with and without repeat prefixes.
 *
 * A repeated instruction commits after each element, so a fault or an interrupt finds the registers where the
 * remaining work starts. One call of a handler does a bounded number of elements and leaves EIP on the
 * instruction when more remain; the loop above looks at events in between. MOVS and STOS upwards in flat
 * segments go by the page, with the host's own string instruction so that overlapping operands behave.
 */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

#define REP_BUDGET 256u

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

/* Host address of seg:off when the segment is flat and the page is in the TLB for this access, else NULL.
 * *bytes is lowered to what is left of the page. */
static uint8_t *page_ptr(struct vcpu *c, unsigned seg, uint32_t off, bool write, uint32_t *bytes)
{
	const struct seg *s = &c->seg[seg];
	uint32_t lin = s->base + off, left = PAGE_SIZE - (lin & ~PAGE_MASK);
	const struct tlb_entry *t = interp_tlb(c, lin);

	if (s->limit != 0xffffffffu || (s->attr & (SEG_P | SEG_CODE | SEG_RW | SEG_DC)) != (SEG_P | SEG_RW))
		return NULL;
	if ((write ? t->wtag : t->rtag) != ((lin & PAGE_MASK) | 1u))
		return NULL;
	if (*bytes > left)
		*bytes = left;
	if (off > 0u - PAGE_SIZE) /* the end of the segment is near */
		return NULL;
	return (uint8_t *)(t->add + lin);
}

static bool bulk_allowed(const struct vcpu *c, const struct insn *i)
{
	return repeated(i) && i->adsize == 4 && !c->df && !(c->sysflags & FL_AC) && !interp_stepping(c);
}

static uint32_t bulk_bytes(const struct vcpu *c, unsigned size)
{
	return c->gpr[ECX] > PAGE_SIZE ? PAGE_SIZE : c->gpr[ECX] * size;
}

static void bulk_movs(struct vcpu *c, const struct insn *i, unsigned size)
{
	uint32_t bytes = bulk_bytes(c, size);
	uint8_t *from = page_ptr(c, i->seg, c->gpr[ESI], false, &bytes);
	uint8_t *to = page_ptr(c, ES, c->gpr[EDI], true, &bytes);
	uint64_t n = bytes / size;

	if (!from || !to || n == 0)
		return;
	c->gpr[ESI] += (uint32_t)n * size;
	c->gpr[EDI] += (uint32_t)n * size;
	c->gpr[ECX] -= (uint32_t)n;
	if (size == 1)
		__asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	else if (size == 2)
		__asm__ volatile("rep movsw" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	else
		__asm__ volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void bulk_stos(struct vcpu *c, unsigned size)
{
	uint32_t bytes = bulk_bytes(c, size);
	uint8_t *to = page_ptr(c, ES, c->gpr[EDI], true, &bytes);
	uint64_t n = bytes / size;

	if (!to || n == 0)
		return;
	c->gpr[EDI] += (uint32_t)n * size;
	c->gpr[ECX] -= (uint32_t)n;
	if (size == 1)
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c->gpr[EAX]) : "memory");
	else if (size == 2)
		__asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(c->gpr[EAX]) : "memory");
	else
		__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(c->gpr[EAX]) : "memory");
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
	if (bulk_allowed(c, i))
		bulk_movs(c, i, element_size(i));
	return repeat(c, i, movs, 0);
}

int op_stos(struct vcpu *c, const struct insn *i)
{
	if (bulk_allowed(c, i))
		bulk_stos(c, element_size(i));
	return repeat(c, i, stos, 0);
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
