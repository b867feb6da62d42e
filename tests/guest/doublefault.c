/*
 * Exceptions while another is being delivered (SDM vol. 3A table 6-5): which pairs make a double fault, which
 * are handled one after the other. And faults of calls through gates while the inner stack is taken from the
 * TSS.
 */
#include "paging.h"

#define SEL_CODE1   (FREE_SELECTOR + 0x00)
#define SEL_DATA1   (FREE_SELECTOR + 0x08)
#define SEL_NP_CODE (FREE_SELECTOR + 0x10)
#define SEL_NP_DATA (FREE_SELECTOR + 0x18)
#define SEL_GATE1   (FREE_SELECTOR + 0x20)
#define SEL_TINY    (FREE_SELECTOR + 0x28) /* a stack of 16 bytes */
#define SEL_NP_USER (FREE_SELECTOR + 0x30)
#define SEL_BEYOND  0xff8u
#define ABSENT	    0x405000u

CODE(ud, "", "ud2");
CODE(bound, "movl $4, %eax; movl $bounds_for_bound, %ebx", "bound %eax, (%ebx)");
__asm__(".data\n.balign 8\nbounds_for_bound: .long 10, 20\n.text\n");
CODE(divide, "xorl %ecx, %ecx", "divl %ecx");
CODE(np, "movl $0x63, %eax", "movw %ax, %ds"); /* SEL_NP_USER */
CODE(ss, "movl $0x63, %eax", "movw %ax, %ss");
CODE(gp, "movl $0xff8, %eax", "movw %ax, %ds");
CODE(pf, "", "movl 0x405000, %eax");
CODE(call_gate, "", "lcall $0x50, $0");
CODE(nothing, "", "nop");

/* What the delivery of the first exception runs into. */
enum obstacle { GATE_NP, GATE_NULL, CODE_NP, STACK_TS, STACK_NP, OBSTACLES };

static const struct first {
	const char *name;
	const struct snippet *code;
	unsigned vector;
	bool contributory;
} firsts[] = {
	{"#BR", &bound, X_BR, false}, {"#UD", &ud, X_UD, false}, {"#DE", &divide, X_DE, true},
	{"#NP", &np, X_NP, true},     {"#SS", &ss, X_SS, true},	 {"#GP", &gp, X_GP, true},
	{"#PF", &pf, X_PF, true},
};

/* EXT is set: the first was no software interrupt (SDM vol. 3A 6.13). */
static const struct second {
	const char *name;
	unsigned vector;
	uint32_t error;
} seconds[OBSTACLES] = {
	[GATE_NP] = {"gate not present", X_NP, 0}, /* error: the gate's */
	[GATE_NULL] = {"gate to a null selector", X_GP, 1},
	[CODE_NP] = {"gate to a segment not present", X_NP, SEL_NP_CODE | 1},
	[STACK_TS] = {"null inner stack", X_TS, 1},
	[STACK_NP] = {"inner stack not present", X_SS, SEL_NP_DATA | 1},
};

static void put_obstacle(unsigned vector, enum obstacle o)
{
	const uint32_t ring0 = (uint32_t)nothing.start;

	switch (o) {
	case GATE_NP:
		idt[vector] = gate(KERNEL_CODE, ring0, GATE_INT32 & ~SEG_PRESENT);
		break;
	case GATE_NULL:
		idt[vector] = gate(0, ring0, GATE_INT32);
		break;
	case CODE_NP:
		idt[vector] = gate(SEL_NP_CODE, ring0, GATE_INT32);
		break;
	default:
		idt[vector] = gate(SEL_CODE1, ring0, GATE_INT32);
		tss.ss1 = o == STACK_TS ? 0 : SEL_NP_DATA | 1;
		tss.esp1 = (uint32_t)ring0_stack + 4096;
	}
}

static const char *both(const char *a, const char *b)
{
	static char text[80];
	char *p = text;

	while (*a)
		*p++ = *a++;
	*p++ = ',';
	*p++ = ' ';
	while (*b)
		*p++ = *b++;
	*p = 0;
	return text;
}

static void pair(const struct first *f, enum obstacle o)
{
	const struct second *s = &seconds[o];
	const uint32_t error = o == GATE_NP ? f->vector * 8 + 3 : s->error;

	/* The second's own gate is the one that is spoilt: it fails as well, and that makes a double fault.
	 */
	bool same = f->vector == s->vector, doubled = f->contributory || same;

	put_obstacle(f->vector, o);
	user_mode();
	if (!doubled)
		sdm("3A 6.13 EXT");
	else if (o == STACK_NP)
		sdm("3A table 6-5");
	expect_fault(both(f->name, s->name), f->code, doubled ? X_DF : s->vector, doubled ? 0 : error);
	set_default_gate(f->vector, 0);
}

static void double_faults(void)
{
	paging_on();
	map(ABSENT, 0);
	for (unsigned i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
		for (unsigned o = 0; o < OBSTACLES; o++)
			pair(&firsts[i], o);
	paging_reset();
}

static void gate_stacks(void)
{
	static const struct {
		const char *name;
		uint32_t ss1, esp1, vector, error;
	} cases[] = {
		{"call gate, inner stack null", 0, 0, X_TS, 0},
		{"call gate, inner stack beyond the GDT", SEL_BEYOND | 1, 0, X_TS, SEL_BEYOND},
		{"call gate, inner stack with RPL 0", SEL_DATA1, 0, X_TS, SEL_DATA1},
		{"call gate, inner stack with DPL 0", KERNEL_DATA | 1, 0, X_TS, KERNEL_DATA},
		{"call gate, inner stack is code", SEL_CODE1 | 1, 0, X_TS, SEL_CODE1},
		{"call gate, inner stack not present", SEL_NP_DATA | 1, 0, X_SS, SEL_NP_DATA},
		{"call gate, inner stack too small", SEL_TINY | 1, 12, X_SS, SEL_TINY},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tss.ss1 = cases[i].ss1;
		tss.esp1 = cases[i].esp1 ? cases[i].esp1 : (uint32_t)ring0_stack + 4096;
		user_mode();
		if (cases[i].vector == X_SS)
			sdm("2A CALL");
		expect_fault(cases[i].name, &call_gate, cases[i].vector, cases[i].error);
		if (cases[i].vector == X_SS)
			sdm("2A CALL");
		check("  esp", out.esp, USER_STACK);
	}
	tss.ss1 = SEL_DATA1 | 1;
	tss.esp1 = (uint32_t)ring0_stack + 4096;
	set_segment(MAIN_TSS, (uint32_t)&tss, 15, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	user_mode();
	expect_fault("call gate, TSS too short for the inner stack", &call_gate, X_TS, MAIN_TSS);
	set_segment(MAIN_TSS, (uint32_t)&tss, sizeof(tss) - 1, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	user_mode();
	expect_done("call gate, good", &call_gate);
	check("  ss", out.ss, SEL_DATA1 | 1);
}

void test(void)
{
	set_segment(SEL_CODE1, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_DATA1, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_NP_CODE, 0, 0xfffff, (SEG_CODE32 | SEG_G) & ~SEG_PRESENT);
	set_segment(SEL_NP_DATA, 0, 0xfffff, (SEG_DATA32 | SEG_G | SEG_DPL(1)) & ~SEG_PRESENT);
	set_segment(SEL_NP_USER, 0, 0xfffff, (SEG_DATA32 | SEG_G | SEG_DPL(3)) & ~SEG_PRESENT);
	set_segment(SEL_TINY, (uint32_t)ring0_stack, 15, SEG_DATA32 | SEG_DPL(1));
	gdt[SEL_GATE1 / 8] = gate(SEL_CODE1, (uint32_t)nothing.start, GATE_CALL32 | SEG_DPL(3));
	double_faults();
	gate_stacks();
}
