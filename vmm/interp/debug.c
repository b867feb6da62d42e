/* debug.c - debug registers and breakpoints (SDM vol. 3B 17.2). */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

#define DR6_FIXED 0xffff0ff0u
#define DR6_BD	  0x2000u
#define DR7_FIXED 0x400u
#define DR7_GD	  0x2000u

enum { BP_EXEC, BP_WRITE, BP_IO, BP_ACCESS };

/* DR6 bits noted by the accesses of the current instruction, to be raised after it. */
uint32_t debug_pending;

static unsigned bp_kind(uint32_t dr7, unsigned n)
{
	return dr7 >> (16 + 4 * n) & 3u;
}

/* LEN field 0 1 2 3 stands for 1, 2, 8 and 4 bytes. */
static unsigned bp_len(uint32_t dr7, unsigned n)
{
	static const uint8_t len[] = {1, 2, 8, 4};

	return len[dr7 >> (18 + 4 * n) & 3u];
}

static bool bp_enabled(uint32_t dr7, unsigned n)
{
	return dr7 >> (2 * n) & 3u;
}

uint32_t debug_exec_hit(const struct vcpu *c, uint32_t lin)
{
	uint32_t hit = 0;

	for (unsigned n = 0; n < 4; n++)
		if (bp_enabled(c->dr[7], n) && bp_kind(c->dr[7], n) == BP_EXEC && c->dr[n] == lin)
			hit |= 1u << n;
	return hit;
}

/* The breakpoint covers len bytes from its address aligned down to len. */
static bool overlaps(const struct vcpu *c, unsigned n, uint32_t at, unsigned size)
{
	unsigned len = bp_len(c->dr[7], n);
	uint32_t first = c->dr[n] & ~(len - 1);

	return at - first < len || first - at < size;
}

void debug_note_data(struct vcpu *c, uint32_t lin, unsigned size, bool write)
{
	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = bp_kind(c->dr[7], n);

		if (bp_enabled(c->dr[7], n) && (kind == BP_ACCESS || (kind == BP_WRITE && write)) &&
		    overlaps(c, n, lin, size))
			debug_pending |= 1u << n;
	}
}

void debug_note_io(struct vcpu *c, uint16_t port, unsigned size)
{
	if (!(c->cr4 & CR4_DE))
		return;
	for (unsigned n = 0; n < 4; n++)
		if (bp_enabled(c->dr[7], n) && bp_kind(c->dr[7], n) == BP_IO && overlaps(c, n, port, size))
			debug_pending |= 1u << n;
}

int debug_raise(struct vcpu *c, uint32_t dr6)
{
	c->dr[6] = (c->dr[6] & ~0xfu) | dr6 | DR6_FIXED;
	return cpu_raise(c, VEC_DB);
}

/* ------------------------------------------------------------------ MOV DR */

/* 0, or -1 with the exception that using debug register n raises. */
static int dr_check(struct vcpu *c, unsigned n)
{
	if (n == 4 || n == 5) {
		if (c->cr4 & CR4_DE)
			return cpu_raise(c, VEC_UD);
	}
	if (c->cpl != 0)
		return cpu_raise_error(c, VEC_GP, 0);
	if (c->dr[7] & DR7_GD)
		return debug_raise(c, DR6_BD);
	return 0;
}

int op_mov_from_dr(struct vcpu *c, const struct insn *i)
{
	unsigned n = i->reg;

	if (dr_check(c, n))
		return -1;
	c->gpr[i->rm] = c->dr[n == 4 || n == 5 ? n + 2 : n];
	return INSN_NEXT;
}

int op_mov_to_dr(struct vcpu *c, const struct insn *i)
{
	unsigned n = i->reg;
	uint32_t v = c->gpr[i->rm];

	if (dr_check(c, n))
		return -1;
	if (n == 4 || n == 5)
		n += 2;
	if (n == 6)
		v = (v & 0xe00fu) | DR6_FIXED;
	else if (n == 7)
		v = (v & 0xffff23ffu) | DR7_FIXED;
	c->dr[n] = v;
	return INSN_NEXT;
}
