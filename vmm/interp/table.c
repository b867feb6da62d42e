/* table.c - from a decoded instruction to its handler. */
#include "vmm/interp/table.h"

#define ROW(opcode, name) [opcode] = op_##name,
static const interp_fn map_1[256] = {INTERP_MAP_1(ROW)};
static const interp_fn map_0F[256] = {INTERP_MAP_0F(ROW)};

/* Rows of the two maps share one list: where a group stands is its map and opcode together. */
#define AT_1  0
#define AT_0F 256
#define GROUP_ROW(map, opcode, a, b, d, e, f, g, h, k)                                                       \
	[AT_##map + (opcode)] = {op_##a, op_##b, op_##d, op_##e, op_##f, op_##g, op_##h, op_##k},
static const interp_fn groups[512][8] = {INTERP_GROUPS(GROUP_ROW)};

int op_fpu(struct vcpu *c, const struct insn *i)
{
	return interp_fpu(c, i);
}

interp_fn interp_handler(const struct insn *i)
{
	unsigned group = i->opmap == 1 ? AT_0F + i->opcode : i->opcode;
	interp_fn fn;

	if (i->opmap == 3)
		return op_fpu;
	if (i->opmap == 2)
		return i->opcode == 0xf0 || i->opcode == 0xf1 ? op_movbe_crc32 : op_fpu;
	fn = groups[group][i->reg];
	if (!fn)
		fn = (i->opmap == 1 ? map_0F : map_1)[i->opcode];
	return fn ? fn : op_ud;
}
