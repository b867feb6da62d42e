/* bt_fast.c - segment loads, INT n, IRET, SYSENTER and SYSEXIT without the interpreter's layers.
 *
 * Segment loads, SYSENTER and SYSEXIT come here when translator/entry_fast.S cannot do them alone: a
 *descriptor that is not known yet, or reads differently; a page that is missing in the software TLB; another
 *address space.
 *
 * INT n and IRET: both ways of a 32-bit kernel whose segments are flat, an interrupt or trap gate to CPL 0
 *and a return to CPL 0 or 3. A descriptor counts only if it is the one that such a kernel has, all its bits
 *but those that say nothing.
 *
 * Memory is reached through the software TLB, as the interpreter would, and in its order. What is not RAM or
 *is traced has no entry there, so that nothing has an effect before all has been checked. If a function
 *returns false, nothing has changed, and the interpreter does it.
 *
 *	if (bt_fast_int(c, vector, next_eip)) ...	c->eip, CPL, segments, stack, flags and space are the
 *handler's
 */
#include "vmm/bt.h"

#include <string.h>

/* The upper halves of descriptors with base 0 and limit 4 GiB - 1, 32-bit, present and accessed, at DPL 0;
 * the lower halves are the same (SDM vol. 3A 3.4.5). */
#define FLAT_LOW    0x0000ffffu
#define FLAT_DATA   0x00cf9300u /* writable, expand-up */
#define FLAT_CODE   0x00cf9900u /* not conforming; readable or not */
#define DESC_DPL(n) ((uint32_t)(n) << 13)
#define DESC_READ   0x00000200u
#define DESC_AVL    0x00100000u

/* Present gates to 32-bit code: interrupt and trap gates, which this bit tells apart (SDM vol. 3A 6.11). */
#define GATE_MASK 0x00009e00u
#define GATE_32	  0x00008e00u
#define GATE_TRAP 0x00000100u

/* ------------------------------------------------------------------ memory */

/* A word of a stack, which need not be aligned. */
struct word {
	uint32_t v;
} __attribute__((packed));

static const struct tlb_entry *tlb_of(const struct vcpu *c, uint32_t lin, unsigned acc)
{
	return &((const struct soft_tlb *)(const void *)c->mem)
			->e[!!(acc & ACC_USER)][(lin >> PAGE_SHIFT) % TLB_SIZE];
}

static bool within_page(uint32_t lin, unsigned len)
{
	return (lin & ~PAGE_MASK) <= PAGE_SIZE - len;
}

static uint32_t tag_of(uint32_t lin)
{
	return (lin & PAGE_MASK) | 1u;
}

/* The last access found nothing in the TLB, which is no more than that. */
static struct {
	bool any;
	uint32_t lin;
	unsigned acc;
} miss;

static __attribute__((noinline, cold)) void *missing(uint32_t lin, unsigned acc)
{
	miss.any = true;
	miss.lin = lin;
	miss.acc = acc;
	return NULL;
}

/* Data as a supervisor reads it. */
static const void *readable(const struct vcpu *c, uint32_t lin, unsigned len)
{
	const struct tlb_entry *t = tlb_of(c, lin, ACC_READ);

	if (!within_page(lin, len))
		return NULL;
	return t->rtag == tag_of(lin) ? (const void *)(t->add + lin) : missing(lin, ACC_READ);
}

/* No trace is on it. Stores are logged only while the interpreter is on trial, which is no concern of ours.
 */
static bool stores_freely(const struct vcpu *c, const struct tlb_entry *t, uint32_t lin)
{
	return t->wtag == tag_of(lin) || (t->ltag == tag_of(lin) && !mem_tlb_traced(c->mem, t));
}

/* To be asked for last. */
static void *writable(const struct vcpu *c, uint32_t lin, unsigned len)
{
	const struct tlb_entry *t = tlb_of(c, lin, ACC_WRITE);

	if (!within_page(lin, len))
		return NULL;
	return stores_freely(c, t, lin) ? (void *)(t->add + lin) : missing(lin, ACC_WRITE);
}

/* Code at privilege cpl. */
static const uint8_t *fetchable(const struct vcpu *c, uint32_t lin, unsigned len, unsigned cpl)
{
	const unsigned acc = ACC_EXEC | (cpl == 3 ? ACC_USER : 0);
	const struct tlb_entry *t = tlb_of(c, lin, acc);

	if (!within_page(lin, len))
		return NULL;
	return t->xtag == tag_of(lin) ? (const uint8_t *)(t->add + lin) : missing(lin, acc);
}

/* More pages than one of these functions reads; they may want the same entry by turns. */
#define PAGES_MAX 8u

/* Looks the missing page up, as the access would, A and D bits included. True: it is in the TLB now. */
static bool page_found(struct vcpu *c)
{
	const struct tlb_entry *t = tlb_of(c, miss.lin, miss.acc);
	const struct exception saved = c->exc;

	if (!miss.any)
		return false;
	miss.any = false;
	(void)mem_probe(c, miss.lin, 1, miss.acc);
	c->exc = saved;
	if (miss.acc & ACC_WRITE)
		return stores_freely(c, t, miss.lin);
	return (miss.acc & ACC_EXEC ? t->xtag : t->rtag) == tag_of(miss.lin);
}

static bool read_pair(const struct vcpu *c, uint32_t lin, uint32_t v[2])
{
	const void *p = readable(c, lin, 8);

	if (p)
		memcpy(v, p, 8);
	return p;
}

/* ------------------------------------------------------------------ descriptors */

/* The attributes of the flat segment of this kind that sel names in the GDT; 0: it names none. */
static unsigned flat_segment(const struct vcpu *c, uint16_t sel, uint32_t high, uint32_t ignore)
{
	uint32_t d[2];

	if (!(sel & 0xfffcu) || sel & 4 || (sel | 7u) > c->gdtr.limit ||
	    !read_pair(c, c->gdtr.base + (sel & 0xfff8u), d))
		return 0;
	return d[0] == FLAT_LOW && (d[1] & ~(ignore | DESC_AVL)) == high ? d[1] >> 8 & 0xf0ffu : 0;
}

static unsigned flat_code(const struct vcpu *c, uint16_t sel, unsigned dpl)
{
	return flat_segment(c, sel, FLAT_CODE | DESC_DPL(dpl), DESC_READ);
}

static unsigned flat_stack(const struct vcpu *c, uint16_t sel, unsigned dpl)
{
	return (sel & 3u) == dpl ? flat_segment(c, sel, FLAT_DATA | DESC_DPL(dpl), 0) : 0;
}

static void set_flat(struct seg *s, unsigned sel, unsigned attr)
{
	*s = (struct seg){.sel = (uint16_t)sel, .attr = (uint16_t)attr, .limit = 0xffffffffu};
}

static bool stack_flat(const struct vcpu *c)
{
	return !(c->hot.cur->mode & MODE_NF_SS);
}

/* ------------------------------------------------------------------ segment loads */

bool bt_fast_seg_load(struct vcpu *c, uint32_t arg)
{
	const unsigned s = arg >> CO_ARG_SEG_SHIFT & 7;
	const uint16_t sel = (uint16_t)c->hot.selector;
	struct seg_known n = {.key = sel | (arg & CO_ARG_KEY)};

	if (!seg_load_foresee(c, s, sel, &n.raw, &n.seg) || (arg & CO_ARG_FLAT && !cpu_seg_flat_data(&n.seg)))
		return false;
	n.poison = bt_seg_poison(&n.seg);
	c->hot.segs_known[sel / 8 % CPU_SEGS_KNOWN] = n;
	c->seg[s] = n.seg;
	c->hot.seg_base[s] = n.seg.base;
	c->hot.seg_poison[s] = n.poison;
	c->gpr[ESP] += arg >> CO_ARG_POP_SHIFT & 15;
	c->eip += arg & 0xff;
	if (s == SS)
		c->shadow = 1;
	return true;
}

/* ------------------------------------------------------------------ SYSENTER, SYSEXIT */

static bool transfer(struct vcpu *c, int (*semantics)(struct vcpu *))
{
	const struct exception saved = c->exc;

	if (semantics(c)) {
		c->exc = saved;
		return false;
	}
	bt_sync_space(c->bt);
	return true;
}

bool bt_fast_sysenter(struct vcpu *c, uint32_t arg)
{
	(void)arg;
	return transfer(c, cpu_sysenter);
}

bool bt_fast_sysexit(struct vcpu *c, uint32_t arg)
{
	(void)arg;
	return transfer(c, cpu_sysexit);
}

/* ------------------------------------------------------------------ INT n */

/* The stack for CPL 0 that the TSS names: its selector and attributes; where five words pushed there stand,
 * in the guest's memory and in the host's, or NULL. */
static struct word *inner_stack(const struct vcpu *c, unsigned *sel, unsigned *attr, uint32_t *esp)
{
	uint32_t v[2]; /* ESP0, SS0 */

	if (!(c->tr.attr & SEG_P) || !(c->tr.attr & 8) || c->tr.limit < 9 || !read_pair(c, c->tr.base + 4, v))
		return NULL;
	*sel = v[1] & 0xffffu;
	*attr = flat_stack(c, (uint16_t)v[1], 0);
	*esp = v[0] - 20;
	return *attr ? writable(c, *esp, 20) : NULL;
}

static bool enter(struct vcpu *c, uint32_t arg)
{
	const uint8_t vector = (uint8_t)(arg >> CO_ARG_VECTOR_SHIFT);
	unsigned cs_attr, ss, ss_attr;
	uint32_t gate[2], esp;
	struct word *frame;

	if (log_on(LOG_INT) || !stack_flat(c) || vector * 8u + 7 > c->idtr.limit ||
	    !read_pair(c, c->idtr.base + vector * 8u, gate) || (gate[1] & GATE_MASK) != GATE_32 ||
	    (gate[1] >> 13 & 3) < c->cpl || !(cs_attr = flat_code(c, (uint16_t)(gate[0] >> 16), 0)))
		return false;
	if (c->cpl == 3) {
		frame = inner_stack(c, &ss, &ss_attr, &esp);
		if (!frame)
			return false;
		frame[3].v = c->gpr[ESP];
		frame[4].v = c->seg[SS].sel;
		set_flat(&c->seg[SS], ss, ss_attr);
		c->cpl = 0;
		bt_sync_cpl(c->bt);
	} else {
		esp = c->gpr[ESP] - 12;
		frame = writable(c, esp, 12);
		if (!frame)
			return false;
	}
	frame[0].v = c->eip + (arg & 0xff);
	frame[1].v = c->seg[CS].sel;
	frame[2].v = cpu_eflags(c);
	set_flat(&c->seg[CS], gate[0] >> 16 & 0xfffcu, cs_attr);
	c->gpr[ESP] = esp;
	c->eip = (gate[0] & 0xffffu) | (gate[1] & 0xffff0000u);
	c->sysflags &= ~(FL_TF | FL_NT | FL_RF | FL_VM);
	if (!(gate[1] & GATE_TRAP))
		c->iflag = 0;
	return true;
}

bool bt_fast_int(struct vcpu *c, uint32_t arg)
{
	for (unsigned n = 0; n < PAGES_MAX; n++) {
		if (enter(c, arg))
			return true;
		if (!page_found(c))
			break;
	}
	return false;
}

/* ------------------------------------------------------------------ IRET */

/* A return to CPL 3 makes null what only an inner level may use. */
static bool drops_segments(const struct vcpu *c)
{
	static const uint8_t data[] = {ES, DS, FS, GS};

	for (unsigned i = 0; i < sizeof data; i++) {
		const uint16_t attr = c->seg[data[i]].attr;
		if (attr & SEG_P && SEG_DPL_OF(attr) < 3 &&
		    (attr & (SEG_CODE | SEG_DC)) != (SEG_CODE | SEG_DC))
			return true;
	}
	return false;
}

/* RF holds for one instruction, and where no breakpoints are enabled only those show it that store EFLAGS:
 * interrupts by instruction, and transfers that may switch tasks. Whether the instruction at eip is none of
 * these. */
static bool hides_rf(const struct vcpu *c, uint32_t eip, unsigned cpl)
{
	const uint8_t *p = fetchable(c, eip, 4, cpl);

	for (unsigned i = 0; p && i < 4; i++)
		switch (p[i]) {
		case 0x26: /* prefixes */
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64 ... 0x67:
		case 0xf0:
		case 0xf2:
		case 0xf3:
			break;
		case 0x9a: /* call, int3, int, into, iret, jmp, int1, and what FF may be */
		case 0xcc ... 0xcf:
		case 0xea:
		case 0xf1:
		case 0xff:
			return false;
		default:
			return true;
		}
	return false;
}

static bool leave(struct vcpu *c)
{
	const uint32_t system = FL_IOPL | FL_NT | FL_AC | FL_VIF | FL_VIP | FL_ID, esp = c->gpr[ESP];

	if (c->cpl != 0 || c->nmi_blocked || c->sysflags & FL_NT || !stack_flat(c))
		return false;
	const struct word *f = readable(c, esp, 12);
	if (!f || f[2].v & (FL_VM | FL_TF))
		return false;
	const unsigned cpl = f[1].v & 3u, cs_attr = flat_code(c, (uint16_t)f[1].v, cpl);
	const uint32_t flags = f[2].v;
	if (!cs_attr || (flags & FL_RF && (c->request || !hides_rf(c, f[0].v, cpl))))
		return false;
	if (cpl == 3) {
		const unsigned ss_attr = within_page(esp, 20) ? flat_stack(c, (uint16_t)f[4].v, 3) : 0;
		if (!ss_attr || drops_segments(c) || (flags & FL_AC && c->cr0 & CR0_AM))
			return false;
		set_flat(&c->seg[SS], f[4].v & 0xffffu, ss_attr);
		c->gpr[ESP] = f[3].v;
	} else if (cpl == 0) {
		c->gpr[ESP] = esp + 12;
	} else {
		return false;
	}
	c->eip = f[0].v;
	set_flat(&c->seg[CS], f[1].v & 0xffffu, cs_attr);
	c->cpl = cpl;
	c->flags = flags & FL_ARITH;
	c->df = flags & FL_DF;
	c->iflag = flags & FL_IF;
	c->sysflags = flags & system;
	if (cpl == 3)
		bt_sync_cpl(c->bt);
	return true;
}

bool bt_fast_iret(struct vcpu *c, uint32_t arg)
{
	(void)arg;
	for (unsigned n = 0; n < PAGES_MAX; n++) {
		if (leave(c))
			return true;
		if (!page_found(c))
			break;
	}
	return false;
}
