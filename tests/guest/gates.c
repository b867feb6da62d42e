/*
 * Call gates, interrupt and trap gates, inner stacks from the TSS, far calls, jumps and returns between
 * privilege levels (SDM vol. 3A 5.8, 6.12; vol. 2A CALL, INT n, RET).
 */
#include "guest.h"

#define SEL_CODE1	(FREE_SELECTOR + 0x00)
#define SEL_DATA1	(FREE_SELECTOR + 0x08)
#define SEL_CODE2	(FREE_SELECTOR + 0x10)
#define SEL_DATA2	(FREE_SELECTOR + 0x18)
#define SEL_CONFORMING	(FREE_SELECTOR + 0x20)
#define SEL_GATE0	(FREE_SELECTOR + 0x28) /* to ring 0, no parameters */
#define SEL_GATE0_P3	(FREE_SELECTOR + 0x30) /* to ring 0, 3 parameters */
#define SEL_GATE1	(FREE_SELECTOR + 0x38) /* to ring 1, 31 parameters */
#define SEL_GATE0_16	(FREE_SELECTOR + 0x40) /* to ring 0, 16-bit, 2 parameters */
#define SEL_GATE_DPL0	(FREE_SELECTOR + 0x48)
#define SEL_GATE_NP	(FREE_SELECTOR + 0x50)
#define SEL_GATE_NULL	(FREE_SELECTOR + 0x58)
#define SEL_GATE_DATA	(FREE_SELECTOR + 0x60)
#define SEL_GATE_CONF	(FREE_SELECTOR + 0x68)
#define SEL_CODE16	(FREE_SELECTOR + 0x70)
#define SEL_GATE_NPCODE (FREE_SELECTOR + 0x78)
#define SEL_NPCODE	(FREE_SELECTOR + 0x80)
#define SEL_GATE_USER	(FREE_SELECTOR + 0x88)

#define LOW_CODE	0x5000u

static uint8_t ring1_stack[4096], ring2_stack[4096] __attribute__((aligned(16)));
#define RING1_STACK ((uint32_t)ring1_stack + sizeof(ring1_stack))

CODE(stop, "", "nop");
CODE(call_gate0, "", "lcall $0x58, $0x12345678");
CODE(call_gate0_p3, "pushl $1; pushl $2; pushl $3", "lcall $0x60, $0");
CODE(call_gate1, "movl $31, %ecx; 1: pushl %ecx; loop 1b", "lcall $0x68, $0");
CODE(call_gate16, "pushw $0x1111; pushw $0x2222", "lcall $0x70, $0");
CODE(call_gate_dpl0, "", "lcall $0x78, $0");
CODE(call_gate_rpl, "", "lcall $0x5b, $0");
CODE(call_gate_np, "", "lcall $0x80, $0");
CODE(call_gate_null, "", "lcall $0x88, $0");
CODE(call_gate_data, "", "lcall $0x90, $0");
CODE(call_gate_conf, "", "lcall $0x98, $0");
CODE(call_gate_npcode, "", "lcall $0xa8, $0");
CODE(call_gate_user, "", "lcall $0xb8, $0");
CODE(jmp_gate0, "", "ljmp $0x58, $0");
CODE(jmp_gate_conf, "", "ljmp $0x98, $0");
CODE(jmp_gate_user, "", "ljmp $0xb8, $0");
CODE(jmp_conf, "", "ljmp $0x53, $stop_start");
CODE(call_conf, "", "lcall $0x53, $stop_start");
CODE(call_same, "", "lcall $0x08, $stop_start");

/* there and back: the gate's code returns at once */
__asm__(".text\nreturn_p3: lret $12\nreturn_p2_16: .byte 0xca, 4, 0\n");
LABEL(return_p3);
__asm__(".text\nload_kernel_segments: pushl $0x10; popl %ds; pushl $0x10; popl %fs; lret $12\n");
LABEL(load_kernel_segments);
LABEL(return_p2_16);
CODE(round_trip, "pushl $1; pushl $2; pushl $3; movl $0x99, %ebx", "lcall $0x60, $0");
CODE(round_trip_16, "pushw $0x1111; pushw $0x2222", "lcall $0x70, $0");

CODE(lret, "", "lret");
CODE(lret8, "", "lret $8");
CODE(int_60, "", "int $0x60");
CODE(int_61, "", "int $0x61");
CODE(int_62, "", "int $0x62");

static void set_call_gate(unsigned selector, uint16_t target, const void *offset, uint32_t attributes)
{
	gdt[selector / 8] = gate(target, (uint32_t)offset, attributes);
}

static void call_gates(void)
{
	uint32_t top = RING0_STACK, wrong = 0;

	set_call_gate(SEL_GATE0, KERNEL_CODE, stop.start, GATE_CALL32 | SEG_DPL(3));
	set_call_gate(SEL_GATE0_P3, KERNEL_CODE, stop.start, GATE_CALL32 | SEG_DPL(3) | 3);
	set_call_gate(SEL_GATE1, SEL_CODE1, stop.start, GATE_CALL32 | SEG_DPL(3) | 31);
	set_call_gate(SEL_GATE0_16, SEL_CODE16, (void *)0x10, GATE_CALL16 | SEG_DPL(3) | 2);
	set_call_gate(SEL_GATE_DPL0, KERNEL_CODE, stop.start, GATE_CALL32);
	set_call_gate(SEL_GATE_NP, KERNEL_CODE, stop.start, (GATE_CALL32 | SEG_DPL(3)) & ~SEG_PRESENT);
	set_call_gate(SEL_GATE_NULL, 0, stop.start, GATE_CALL32 | SEG_DPL(3));
	set_call_gate(SEL_GATE_DATA, KERNEL_DATA, stop.start, GATE_CALL32 | SEG_DPL(3));
	set_call_gate(SEL_GATE_CONF, SEL_CONFORMING, stop.start, GATE_CALL32 | SEG_DPL(3));
	set_call_gate(SEL_GATE_NPCODE, SEL_NPCODE, stop.start, GATE_CALL32 | SEG_DPL(3));
	set_call_gate(SEL_GATE_USER, USER_CODE, stop.start, GATE_CALL32 | SEG_DPL(3));

	user_mode();
	expect_done("call gate to ring 0", &call_gate0);
	check("  cs", out.cs, KERNEL_CODE);
	check("  ss", out.ss, KERNEL_DATA);
	check("  esp", out.esp, top - 16);
	check("  eip pushed", MEM32(top - 16) - (uint32_t)call_gate0.after, 0);
	check("  cs pushed", MEM32(top - 12) & 0xffff, USER_CODE);
	check("  esp pushed", MEM32(top - 8), USER_STACK);
	check("  ss pushed", MEM32(top - 4) & 0xffff, USER_DATA);
	check("  ds kept", out.ds, USER_DATA);

	user_mode();
	expect_done("call gate with 3 parameters", &call_gate0_p3);
	check("  esp", out.esp, top - 28);
	check("  eip pushed", MEM32(top - 28) - (uint32_t)call_gate0_p3.after, 0);
	check("  parameters", MEM32(top - 20) << 8 | MEM32(top - 16) << 4 | MEM32(top - 12), 0x321);
	check("  esp pushed", MEM32(top - 8), USER_STACK - 12);

	user_mode();
	expect_done("call gate to ring 1 with 31 parameters", &call_gate1);
	check("  cs", out.cs, SEL_CODE1 | 1);
	check("  ss", out.ss, SEL_DATA1 | 1);
	check("  esp", out.esp, RING1_STACK - 16 - 31 * 4);
	for (uint32_t i = 0; i < 31; i++)
		wrong += MEM32(RING1_STACK - 12 - 4 * i) != 31 - i;
	check("  parameters wrong", wrong, 0);

	memcpy((void *)0x20010, stop.start, 16);
	user_mode();
	expect_done("16-bit call gate with 2 parameters", &call_gate16);
	check("  cs", out.cs, SEL_CODE16);
	check("  esp", out.esp, top - 12);
	check("  ip pushed", MEM16(top - 12), (uint32_t)call_gate16.after & 0xffff);
	check("  cs pushed", MEM16(top - 10), USER_CODE);
	check("  parameters", MEM16(top - 8) << 16 | MEM16(top - 6), 0x22221111);
	check("  sp pushed", MEM16(top - 4), (USER_STACK - 4) & 0xffff);
	check("  ss pushed", MEM16(top - 2), USER_DATA);

	expect_done("call gate from ring 0: no stack switch", &call_gate0_p3);
	check("  esp", out.esp, SNIPPET_STACK - 20);
	check("  cs pushed", MEM32(SNIPPET_STACK - 16) & 0xffff, KERNEL_CODE);
	expect_done("jmp through a gate, ring 0", &jmp_gate0);
	check("  esp", out.esp, SNIPPET_STACK);

	user_mode();
	expect_fault("gate DPL 0 from cpl 3", &call_gate_dpl0, X_GP, SEL_GATE_DPL0);
	user_mode();
	expect_done("gate selector with RPL 3", &call_gate_rpl);
	set_call_gate(SEL_GATE0, KERNEL_CODE, stop.start, GATE_CALL32 | SEG_DPL(2));
	expect_fault("gate DPL 2, RPL 3, from cpl 0", &call_gate_rpl, X_GP, SEL_GATE0);
	set_call_gate(SEL_GATE0, KERNEL_CODE, stop.start, GATE_CALL32 | SEG_DPL(3));
	user_mode();
	expect_fault("gate not present", &call_gate_np, X_NP, SEL_GATE_NP);
	user_mode();
	expect_fault("gate to a null selector", &call_gate_null, X_GP, 0);
	user_mode();
	expect_fault("gate to a data segment", &call_gate_data, X_GP, KERNEL_DATA);
	user_mode();
	expect_fault("gate to a segment not present", &call_gate_npcode, X_NP, SEL_NPCODE);
	user_mode();
	expect_fault("jmp through a gate to ring 0", &jmp_gate0, X_GP, KERNEL_CODE);
	expect_fault("gate to an outer ring", &call_gate_user, X_GP, USER_CODE & ~3);
	user_mode();
	expect_done("gate to the same ring", &call_gate_user);
	check("  cs", out.cs, USER_CODE);
	check("  esp", out.esp, USER_STACK - 8);
	user_mode();
	expect_done("jmp through a gate to the same ring", &jmp_gate_user);
	user_mode();
	expect_done("gate to conforming code: cpl stays 3", &call_gate_conf);
	sdm("2A CALL"); /* QEMU takes the RPL from the descriptor's DPL */
	check("  cs", out.cs, SEL_CONFORMING | 3);
	sdm("2A CALL");
	check("  esp", out.esp, USER_STACK - 8);
	user_mode();
	expect_done("jmp through a gate to conforming code", &jmp_gate_conf);
	check("  cs", out.cs, SEL_CONFORMING | 3);
	user_mode();
	expect_done("jmp to conforming code", &jmp_conf);
	check("  cs", out.cs, SEL_CONFORMING | 3);
	user_mode();
	expect_done("call to conforming code", &call_conf);
	check("  cs", out.cs, SEL_CONFORMING | 3);
	expect_done("call to conforming code, ring 0, RPL 3", &call_conf);
	check("  cs", out.cs, SEL_CONFORMING);
	expect_done("far call in ring 0", &call_same);
	check("  pushed", (MEM32(SNIPPET_STACK - 4) & 0xffff) << 16 | (MEM32(SNIPPET_STACK - 8) & 0xffff),
	      KERNEL_CODE << 16 | ((uint32_t)call_same.after & 0xffff));
}

static void round_trips(void)
{
	set_call_gate(SEL_GATE0_P3, KERNEL_CODE, return_p3, GATE_CALL32 | SEG_DPL(3) | 3);
	user_mode();
	expect_done("call gate and lret 12", &round_trip);
	check("  cs", out.cs, USER_CODE);
	check("  esp", out.esp, USER_STACK);
	check("  ebx", out.ebx, 0x99);
	check("  ds", out.ds, USER_DATA);
	/* ds is made unusable on the way out when it is more privileged (SDM vol. 2B RET) */
	in.cs = USER_CODE;
	in.ss = USER_DATA;
	in.esp = USER_STACK;
	in.es = USER_DATA;
	in.fs = 0;
	in.ds = USER_DATA;
	in.gs = SEL_CONFORMING | 3;
	set_call_gate(SEL_GATE0_P3, KERNEL_CODE, load_kernel_segments, GATE_CALL32 | SEG_DPL(3) | 3);
	expect_done("lret with ring 0 data segments loaded", &round_trip);
	check("  ds", out.ds, 0);
	check("  fs", out.fs, 0);
	check("  es", out.es, USER_DATA);
	check("  gs, conforming", out.gs, SEL_CONFORMING | 3);

	/* the frame has room for 16 bits of eip, so the caller must live below 64 KiB */
	const struct snippet low = {(char *)LOW_CODE, (char *)LOW_CODE, (char *)LOW_CODE};

	memcpy((void *)0x20010, return_p2_16, 16);
	memcpy((void *)LOW_CODE, round_trip_16.start, 32);
	user_mode();
	expect_done("16-bit call gate and lret 4", &low);
	check("  cs", out.cs, USER_CODE);
	check("  sp", out.esp & 0xffff, USER_STACK & 0xffff);
}

static void push32(uint32_t *esp, uint32_t value)
{
	*esp -= 4;
	MEM32(*esp) = value;
}

/* A far return's frame: eip, cs, and optionally esp, ss. */
static void return_frame(uint32_t cs, uint32_t ss, uint32_t skipped)
{
	uint32_t esp = SNIPPET_STACK;

	push32(&esp, ss);
	push32(&esp, USER_STACK);
	for (uint32_t i = 0; i < skipped; i += 4)
		push32(&esp, 0);
	push32(&esp, cs);
	push32(&esp, (uint32_t)stop.start);
	in.esp = esp;
}

static void far_returns(void)
{
	static const struct {
		const char *name;
		uint32_t cs, ss, vector, error;
	} bad[] = {
		{"lret, null cs", 0, USER_DATA, X_GP, 0},
		{"lret, data segment", KERNEL_DATA, USER_DATA, X_GP, KERNEL_DATA},
		{"lret, beyond the GDT", 0xff8, USER_DATA, X_GP, 0xff8},
		{"lret, cs not present", SEL_NPCODE, USER_DATA, X_NP, SEL_NPCODE},
		{"lret, RPL 3 to a DPL 0 segment", KERNEL_CODE | 3, USER_DATA, X_GP, KERNEL_CODE},
		{"lret, RPL 0 to a DPL 3 segment", USER_CODE & ~3, USER_DATA, X_GP, USER_CODE & ~3},
		{"lret to ring 3, null ss", USER_CODE, 0, X_GP, 0},
		{"lret to ring 3, ss DPL 0", USER_CODE, KERNEL_DATA | 3, X_GP, KERNEL_DATA},
		{"lret to ring 3, ss RPL 0", USER_CODE, USER_DATA & ~3, X_GP, USER_DATA & ~3},
		{"lret to ring 3, ss is code", USER_CODE, USER_CODE, X_GP, USER_CODE & ~3},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		return_frame(bad[i].cs, bad[i].ss, 0);
		expect_fault(bad[i].name, &lret, bad[i].vector, bad[i].error);
		check("  esp", out.esp, SNIPPET_STACK - 16);
	}
	return_frame(USER_CODE, USER_DATA, 0);
	expect_done("lret to ring 3", &lret);
	check("  esp", out.esp, USER_STACK);
	return_frame(USER_CODE, USER_DATA, 8);
	expect_done("lret 8 to ring 3: both stacks released", &lret8);
	check("  esp", out.esp, USER_STACK + 8);
	return_frame(SEL_CODE1 | 1, SEL_DATA1 | 1, 0);
	expect_done("lret to ring 1", &lret);
	check("  cs", out.cs, SEL_CODE1 | 1);
	return_frame(SEL_CONFORMING | 2, SEL_DATA2 | 2, 0);
	expect_done("lret to conforming code, RPL 2", &lret);
	check("  cs", out.cs, SEL_CONFORMING | 2);
	return_frame(KERNEL_CODE, 0, 0);
	expect_done("lret in ring 0", &lret);
	check("  esp", out.esp, SNIPPET_STACK - 8);
	user_mode();
	return_frame(KERNEL_CODE, 0, 0);
	expect_fault("lret from ring 3 inwards", &lret, X_GP, KERNEL_CODE);
}

static void interrupt_gates(void)
{
	uint32_t top = RING0_STACK;

	set_gate(0x60, stop.start, GATE_INT32 | SEG_DPL(3));
	set_gate(0x61, stop.start, GATE_TRAP32 | SEG_DPL(3));
	idt[0x62] = gate(SEL_CODE1, (uint32_t)stop.start, GATE_TRAP32 | SEG_DPL(3));

	in.eflags |= EFLAGS_IF;
	expect_done("interrupt gate, ring 0", &int_60);
	check("  IF inside", out.eflags & EFLAGS_IF, 0);
	check("  IF pushed", MEM32(SNIPPET_STACK - 4) & EFLAGS_IF, EFLAGS_IF);
	in.eflags |= EFLAGS_IF;
	expect_done("trap gate, ring 0", &int_61);
	check("  IF inside", out.eflags & EFLAGS_IF, EFLAGS_IF);

	user_mode();
	in.eflags |= EFLAGS_IF | EFLAGS_DF | EFLAGS_CF;
	expect_done("interrupt gate from ring 3", &int_60);
	check("  flags inside", out.eflags & 0xed7, EFLAGS_DF | EFLAGS_CF | 2);
	check("  esp", out.esp, top - 20);
	check("  eip pushed", MEM32(top - 20) - (uint32_t)int_60.after, 0);
	check("  cs pushed", MEM32(top - 16) & 0xffff, USER_CODE);
	check("  eflags pushed", MEM32(top - 12), EFLAGS_IF | EFLAGS_DF | EFLAGS_CF | 2);
	check("  esp pushed", MEM32(top - 8), USER_STACK);
	check("  ss pushed", MEM32(top - 4) & 0xffff, USER_DATA);
	check("  ds inside", out.ds, USER_DATA);

	user_mode();
	in.eflags |= EFLAGS_IF | EFLAGS_NT;
	expect_done("trap gate to ring 1 from ring 3", &int_62);
	check("  cs", out.cs, SEL_CODE1 | 1);
	check("  ss", out.ss, SEL_DATA1 | 1);
	check("  IF inside", out.eflags & (EFLAGS_IF | EFLAGS_NT), EFLAGS_IF);
	check("  NT pushed", MEM32(RING1_STACK - 12) & EFLAGS_NT, EFLAGS_NT);

	/* 16-bit gates push 16-bit frames; ip and cs come from the gate's low half */
	idt[0x60] = gate(SEL_CODE16, 0x10, GATE_INT16 | SEG_DPL(3));
	memcpy((void *)0x20010, stop.start, 16);
	user_mode();
	in.eflags |= EFLAGS_CF;
	expect_done("16-bit interrupt gate from ring 3", &int_60);
	check("  cs", out.cs, SEL_CODE16);
	check("  esp", out.esp, top - 10);
	check("  ip pushed", MEM16(top - 10), (uint32_t)int_60.after & 0xffff);
	check("  cs pushed", MEM16(top - 8), USER_CODE);
	check("  flags pushed", MEM16(top - 6), 3);
	check("  sp pushed", MEM16(top - 4), USER_STACK & 0xffff);
	check("  ss pushed", MEM16(top - 2), USER_DATA);
	expect_done("16-bit interrupt gate, ring 0", &int_60);
	check("  esp", out.esp, SNIPPET_STACK - 6);

	/* conforming code runs at the interrupted level: nothing but the frame is pushed */
	idt[0x60] = gate(SEL_CONFORMING, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	user_mode();
	expect_done("interrupt gate to conforming code", &int_60);
	check("  cs", out.cs, SEL_CONFORMING | 3);
	check("  esp", out.esp, USER_STACK - 12);
}

/* Limits of the TSS: ss0 and esp0 must be inside (SDM vol. 2A INT n: #TS(current TSS selector)). */
static void small_tss(void)
{
	idt[0x60] = gate(SEL_CODE1, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	/* esp1 and ss1 are at 12..17: a limit of 11 has room for ring 0's only */
	for (uint32_t limit = 0x66; limit <= 0x67; limit++) {
		set_segment(MAIN_TSS, (uint32_t)&tss, limit, SEG_TSS32);
		in.eax = MAIN_TSS;
		CODE(ltr, "", "ltr %ax; movb $0x89, gdt + 0x28 + 5");
		if (limit == 0x66)
			sdm("3A 8.2.2"); /* a TSS descriptor may not be smaller; LTR itself does not look */
		expect_done("ltr", &ltr);
		user_mode();
		expect_done("  int to ring 1", &int_60);
	}
	gdt[MAIN_TSS / 8] = segment((uint32_t)&tss, 15, SEG_TSS32);
	__asm__ volatile("ltr %w0; movb $0x89, gdt + 0x28 + 5" : : "r"(MAIN_TSS) : "memory");
	user_mode();
	expect_fault("int to ring 1, TSS limit 15", &int_60, X_TS, MAIN_TSS);
	gdt[MAIN_TSS / 8] = segment((uint32_t)&tss, 103, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));

	/* a 16-bit TSS keeps its stacks as sp, ss pairs from offset 2 (SDM vol. 3A 8.6) */
	static uint16_t tss16[22];

	tss16[1] = 0xfff0;
	tss16[2] = SEL_CODE16 + 0x20; /* 16-bit ring 0 stack at 0x20000 */
	set_segment(SEL_CODE16 + 0x20, 0x20000, 0xffff, SEG_DATA16);
	set_segment(SEL_CODE16 + 0x28, (uint32_t)tss16, sizeof(tss16) - 1, SEG_TSS16);
	__asm__ volatile("ltr %w0" : : "r"(SEL_CODE16 + 0x28) : "memory");
	set_gate(0x60, stop.start, GATE_INT32 | SEG_DPL(3));
	user_mode();
	in.eflags |= EFLAGS_CF;
	expect_done("int to ring 0 through a 16-bit TSS", &int_60);
	check("  ss", out.ss, SEL_CODE16 + 0x20);
	check("  sp", out.esp & 0xffff, 0xfff0 - 20);
	check("  eflags pushed", MEM32(0x2fff0 - 12), 3);
	check("  esp pushed", MEM32(0x2fff0 - 8), USER_STACK);
	set_segment(MAIN_TSS, (uint32_t)&tss, 103, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
}

void test(void)
{
	set_segment(SEL_CODE1, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_DATA1, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_CODE2, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(2));
	set_segment(SEL_DATA2, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(2));
	set_segment(SEL_CONFORMING, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_CONFORMING);
	set_segment(SEL_NPCODE, 0, 0xfffff, (SEG_CODE32 | SEG_G) & ~SEG_PRESENT);
	set_segment(SEL_CODE16, 0x20000, 0xffff, SEG_CODE16);
	tss.ss1 = SEL_DATA1 | 1;
	tss.esp1 = RING1_STACK;
	tss.ss2 = SEL_DATA2 | 2;
	tss.esp2 = (uint32_t)ring2_stack + sizeof(ring2_stack);

	call_gates();
	round_trips();
	far_returns();
	interrupt_gates();
	small_tss();
}
