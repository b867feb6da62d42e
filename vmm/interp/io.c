/* io.c - IN and OUT, and who may (SDM vol. 1 18.5). */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* The I/O permission bitmap of a 32-bit TSS: its offset stands at 0x66, and the two bytes that hold the
 * port's bits must lie within the limit. The read is an implicit supervisor access. */
static int bitmap_check(struct vcpu *c, uint16_t port, unsigned size)
{
	unsigned type = c->tr.attr & (SEG_S | SEG_TYPE);
	uint16_t map, bits;
	uint32_t at;

	if (!(c->tr.attr & SEG_P) || (type != SYS_TSS32 && type != SYS_TSS32_BUSY) || c->tr.limit < 0x67)
		return cpu_raise_error(c, VEC_GP, 0);
	if (mem_read16(c, c->tr.base + 0x66, &map, 0))
		return -1;
	at = map + port / 8u;
	if (at + 1 > c->tr.limit)
		return cpu_raise_error(c, VEC_GP, 0);
	if (mem_read16(c, c->tr.base + at, &bits, 0))
		return -1;
	if (bits >> (port & 7u) & ((1u << size) - 1))
		return cpu_raise_error(c, VEC_GP, 0);
	return 0;
}

int io_check(struct vcpu *c, uint16_t port, unsigned size)
{
	if (cpu_protected(c) && (cpu_v86(c) || c->cpl > cpu_iopl(c)) && bitmap_check(c, port, size))
		return -1;
	if (unlikely(c->dr[7] & 0xffu))
		debug_note_io(c, port, size);
	return 0;
}

static int in(struct vcpu *c, uint16_t port, unsigned size)
{
	uint32_t v;

	if (io_check(c, port, size))
		return -1;
	v = pio_read(c->machine, port, size);
	if (size == 1)
		set_reg8(c, EAX, (uint8_t)v);
	else
		set_reg(c, EAX, v, size);
	return INSN_NEXT;
}

static int out(struct vcpu *c, uint16_t port, unsigned size)
{
	if (io_check(c, port, size))
		return -1;
	pio_write(c->machine, port, size == 4 ? c->gpr[EAX] : c->gpr[EAX] & ((1u << 8 * size) - 1), size);
	return INSN_NEXT;
}

/* Opcodes E4-E7 take an immediate port, EC-EF take DX; bit 0 is the width and bit 1 the direction. */
int op_in_out(struct vcpu *c, const struct insn *i)
{
	uint16_t port = i->opcode & 8 ? reg16(c, EDX) : (uint8_t)i->imm;
	unsigned size = i->opcode & 1 ? i->opsize : 1;

	return i->opcode & 2 ? out(c, port, size) : in(c, port, size);
}
