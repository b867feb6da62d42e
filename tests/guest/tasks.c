/*
 * Hardware task switches (SDM vol. 3A 8): jmp, call, int through task gates and iret back; what is saved and
 * loaded, busy and nested flags, CR0.TS, the T bit, page tables and LDT of the new task, 16-bit TSSs, and
 * what is refused.
 */
#include "paging.h"

#define SEL_TASK       (FREE_SELECTOR + 0x00)
#define SEL_GATE       (FREE_SELECTOR + 0x08)
#define SEL_TASK16     (FREE_SELECTOR + 0x10)
#define SEL_TASK_LDT   (FREE_SELECTOR + 0x18)
#define SEL_NOTHING    (FREE_SELECTOR + 0x20)
#define SEL_CODE16     (FREE_SELECTOR + 0x28)
#define SEL_STACK16    (FREE_SELECTOR + 0x30)

#define SEL_FAULT_TASK (FREE_SELECTOR + 0x38)

#define TYPE(selector) (gdt[(selector) / 8] >> 40 & 0x1f)
#define AVAILABLE      0x09u
#define BUSY	       0x0bu

static struct tss task, fault_task;
static uint8_t task_stack[4096] __attribute__((aligned(16)));
static uint64_t task_ldt[2] __attribute__((aligned(8)));
#define TASK_STACK ((uint32_t)task_stack + sizeof(task_stack))

/* SDM vol. 3A figure 8-10 */
static struct {
	uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss,
		ds, ldt;
} task16;

CODE(stop, "", "nop");
CODE(jmp_task, "movl $0x11, %ebx", "ljmp $0x30, $0x12345678");
CODE(call_task, "movl $0x11, %ebx", "lcall $0x30, $0x12345678");
CODE(jmp_gate, "movl $0x11, %ebx", "ljmp $0x38, $0");
CODE(call_gate, "movl $0x11, %ebx", "lcall $0x38, $0");
CODE(int_60, "movl $0x11, %ebx", "int $0x60");
CODE(ud2, "movl $0x11, %ebx", "ud2");
CODE(jmp_task16, "movl $0x11223344, %ebx", "ljmp $0x40, $0");
CODE(call_task16, "movl $0x11223344, %ebx", "lcall $0x40, $0");
CODE(iret_, "", "iretl");
CODE_THEN(call_and_back, "movl $0x11, %ebx", "lcall $0x30, $0", "incl %ebx");
CODE_THEN(int_and_back, "movl $0x11, %ebx", "int $0x60", "incl %ebx");
__asm__(".text\ntask_returns: incl %eax; iretl; addl $0x10, %eax; iretl");
LABEL(task_returns);

static void task_state(void)
{
	memset(&task, 0, offsetof(struct tss, io_bitmap));
	task.eip = (uint32_t)stop.start;
	task.eflags = 2;
	task.eax = 0xa1;
	task.ecx = 0xc1;
	task.edx = 0xd1;
	task.ebx = 0xb1;
	task.esp = TASK_STACK;
	task.ebp = 0xb2;
	task.esi = 0x51;
	task.edi = 0xd2;
	task.cs = KERNEL_CODE;
	task.ds = task.es = task.ss = KERNEL_DATA;
	task.fs = USER_DATA;
	task.gs = 0;
	task.cr3 = get_cr3();
	task.io_map = offsetof(struct tss, io_bitmap);
	set_segment(SEL_TASK, (uint32_t)&task, 103, SEG_TSS32 | SEG_DPL(3));
	gdt[SEL_GATE / 8] = gate(SEL_TASK, 0, GATE_TASK | SEG_DPL(3));
	idt[0x60] = gate(SEL_TASK, 0, GATE_TASK | SEG_DPL(3));
}

/* Back to the task that the rest of the test runs in. */
static void main_task(void)
{
	set_segment(MAIN_TSS, (uint32_t)&tss, 103, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	__asm__ volatile("clts");
	task_state();
	memset(&tss.eip, 0xee, offsetof(struct tss, ldt) - offsetof(struct tss, eip));
	tss.ldt = 0;
}

static void arrived(uint32_t pushed)
{
	check("  eax ecx edx ebx", out.eax << 24 | out.ecx << 16 | out.edx << 8 | out.ebx, 0xa1c1d1b1);
	check("  ebp esi edi", out.ebp << 16 | out.esi << 8 | out.edi, 0xb251d2);
	check("  esp", out.esp, TASK_STACK - pushed);
	check("  cs ss ds es", out.cs << 24 | out.ss << 16 | out.ds << 8 | out.es, 0x08101010);
	check("  fs gs", out.fs << 16 | out.gs, USER_DATA << 16);
	check("  CR0.TS", get_cr0() & CR0_TS, CR0_TS);
	check("  busy", TYPE(SEL_TASK), BUSY);
}

static void left(const struct snippet *code, bool nested, uint32_t eip)
{
	uint32_t tr;

	__asm__ volatile("str %0" : "=r"(tr));
	check("  tr", tr & 0xffff, SEL_TASK);
	check("  saved eip", tss.eip - (uint32_t)code->start, eip - (uint32_t)code->start);
	check("  saved ebx", tss.ebx, 0x11);
	check("  saved esp", tss.esp, SNIPPET_STACK);
	check("  saved cs", tss.cs & 0xffff, KERNEL_CODE);
	check("  saved eflags", tss.eflags & ~EFLAGS_RF, 2);
	check("  old task busy", TYPE(MAIN_TSS), nested ? BUSY : AVAILABLE);
	check("  link", task.link & 0xffff, nested ? MAIN_TSS : 0);
	check("  NT", out.eflags & EFLAGS_NT, nested ? EFLAGS_NT : 0);
}

static void switches(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		bool nested, at, error;
	} ways[] = {
		{"jmp to a TSS", &jmp_task},
		{"call to a TSS", &call_task, true},
		{"jmp through a task gate", &jmp_gate},
		{"call through a task gate", &call_gate, true},
		{"int through a task gate", &int_60, true},
		{"#UD through a task gate", &ud2, true, true},
	};

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		main_task();
		idt[X_UD] = gate(SEL_TASK, 0, GATE_TASK);
		expect_vector(ways[i].name, ways[i].code, DONE_VECTOR, NO_ERROR, stop.after + 2);
		arrived(0);
		left(ways[i].code, ways[i].nested,
		     (uint32_t)(ways[i].at ? ways[i].code->at : ways[i].code->after));
		set_default_gate(X_UD, 0);
	}

	/* an error code comes with the switch, on the new task's stack, 4 bytes */
	main_task();
	idt[X_GP] = gate(SEL_TASK, 0, GATE_TASK);
	CODE(gp, "movl $0x11, %ebx", "int $0x61");
	set_gate(0x61, 0, GATE_CALL32);
	expect_vector("#GP through a task gate", &gp, DONE_VECTOR, NO_ERROR, stop.after + 2);
	arrived(4);
	left(&gp, true, (uint32_t)gp.at);
	check("  error code", MEM32(TASK_STACK - 4), 0x61 * 8 + 2);
	set_default_gate(X_GP, 0);
	set_default_gate(0x61, 0);

	/* from ring 3, whose whole state is saved */
	main_task();
	user_mode();
	in.eflags |= EFLAGS_CF;
	expect_vector("call to a TSS from cpl 3", &call_gate, DONE_VECTOR, NO_ERROR, stop.after + 2);
	check("  saved cs", tss.cs & 0xffff, USER_CODE);
	check("  saved ss", tss.ss & 0xffff, USER_DATA);
	check("  saved esp", tss.esp, USER_STACK);
	check("  saved eflags", tss.eflags, EFLAGS_CF | 2);
	main_task();
	task.cs = USER_CODE;
	task.ds = task.es = task.ss = USER_DATA;
	task.esp = USER_STACK;
	task.esp0 = TASK_STACK;
	task.ss0 = KERNEL_DATA;
	task.eflags = 2 | EFLAGS_IF | EFLAGS_IOPL;
	expect_vector("jmp to a task at cpl 3", &jmp_task, DONE_VECTOR, NO_ERROR, stop.after + 2);
	check("  cs", out.cs, USER_CODE);
	check("  eflags", out.eflags & (EFLAGS_IF | EFLAGS_IOPL), EFLAGS_IF | EFLAGS_IOPL);
	check("  its own ring 0 stack was used", MEM32(TASK_STACK - 8), USER_STACK);
}

static void returns(void)
{
	main_task();
	task.eip = (uint32_t)task_returns;
	expect_done("call and iret", &call_and_back);
	check("  ebx", out.ebx, 0x12);
	check("  esp", out.esp, SNIPPET_STACK);
	check("  main task busy", TYPE(MAIN_TSS), BUSY);
	check("  other task available", TYPE(SEL_TASK), AVAILABLE);
	check("  its eip, after the iret", task.eip - (uint32_t)task_returns, 2);
	check("  its eax", task.eax, 0xa2);
	check("  its NT is clear in the saved flags", task.eflags & EFLAGS_NT, 0);
	/* called again, it goes on where it left */
	expect_done("int and iret, resumed", &int_and_back);
	check("  ebx", out.ebx, 0x12);
	check("  its eax", task.eax, 0xb2);

	main_task();
	tss.link = SEL_NOTHING;
	in.eflags |= EFLAGS_NT;
	expect_fault("iret, NT, link to no TSS", &iret_, X_TS, SEL_NOTHING);
	tss.link = SEL_TASK;
	in.eflags |= EFLAGS_NT;
	expect_fault("iret, NT, link to a TSS that is not busy", &iret_, X_TS, SEL_TASK);
	tss.link = 0;
	in.eflags |= EFLAGS_NT;
	expect_fault("iret, NT, null link", &iret_, X_TS, 0);
	gdt[SEL_TASK / 8] |= 2ull << 40;
	tss.link = SEL_TASK;
	in.eflags |= EFLAGS_NT;
	expect_vector("iret to a busy TSS", &iret_, DONE_VECTOR, NO_ERROR, stop.after + 2);
	check("  main task available", TYPE(MAIN_TSS), AVAILABLE);
	check("  saved eip", tss.eip - (uint32_t)iret_.after, 0);
	check("  NT", out.eflags & EFLAGS_NT, 0);
	tss.link = 0;
}

/* Before the switch, in the old task's context (SDM vol. 3A table 8-1 and vol. 2A JMP, CALL). */
static void refusals(void)
{
	main_task();
	gdt[SEL_TASK / 8] |= 2ull << 40;
	expect_fault("jmp to a busy TSS", &jmp_task, X_GP, SEL_TASK);
	expect_fault("call to a busy TSS", &call_task, X_GP, SEL_TASK);
	expect_fault("jmp through a gate to a busy TSS", &jmp_gate, X_GP, SEL_TASK);
	expect_fault("int through a gate to a busy TSS", &int_60, X_GP, SEL_TASK);
	task_state();
	gdt[SEL_TASK / 8] &= ~(0x8000ull << 32);
	expect_fault("jmp to a TSS not present", &jmp_task, X_NP, SEL_TASK);
	expect_fault("int through a gate to a TSS not present", &int_60, X_NP, SEL_TASK);
	task_state();
	set_segment(SEL_TASK, (uint32_t)&task, 102, SEG_TSS32);
	expect_fault("jmp to a TSS with limit 102", &jmp_task, X_TS, SEL_TASK);
	task_state();
	set_segment(SEL_TASK, (uint32_t)&task, 103, SEG_TSS32);
	user_mode();
	expect_fault("jmp at cpl 3 to a TSS with DPL 0", &jmp_task, X_GP, SEL_TASK);
	user_mode();
	expect_vector("jmp at cpl 3 through a gate with DPL 3", &jmp_gate, DONE_VECTOR, NO_ERROR,
		      stop.after + 2);
	main_task();
	gdt[SEL_GATE / 8] = gate(SEL_TASK, 0, GATE_TASK);
	user_mode();
	expect_fault("jmp at cpl 3 through a gate with DPL 0", &jmp_gate, X_GP, SEL_GATE);
	gdt[SEL_GATE / 8] = gate(SEL_TASK, 0, GATE_TASK & ~SEG_PRESENT);
	expect_fault("jmp through a gate not present", &jmp_gate, X_NP, SEL_GATE);
	gdt[SEL_GATE / 8] = gate(KERNEL_DATA, 0, GATE_TASK);
	expect_fault("jmp through a gate to a data segment", &jmp_gate, X_GP, KERNEL_DATA);
	gdt[SEL_GATE / 8] = gate(SEL_TASK | 4, 0, GATE_TASK);
	sdm("2A JMP");
	expect_fault("jmp through a gate to an LDT selector", &jmp_gate, X_GP, SEL_TASK | 4);
}

/*
 * After the switch, in the new task's context, before its first instruction. The new task may have no usable
 * stack, so the handler is a task of its own (SDM vol. 3A 6.15 #TS), which finds the state of the bad one
 * saved.
 */
static void bad_new_state(void)
{
	static const struct {
		const char *name;
		size_t field;
		uint32_t value, vector, error;
	} cases[] = {
		{"new cs null", offsetof(struct tss, cs), 0, X_TS, 0},
		{"new cs is data", offsetof(struct tss, cs), KERNEL_DATA, X_TS, KERNEL_DATA},
		{"new cs DPL 3, RPL 0", offsetof(struct tss, cs), USER_CODE & ~3, X_TS, USER_CODE & ~3},
		{"new cs not present", offsetof(struct tss, cs), SEL_NOTHING, X_NP, SEL_NOTHING},
		{"new ss null", offsetof(struct tss, ss), 0, X_TS, 0},
		{"new ss RPL 3", offsetof(struct tss, ss), KERNEL_DATA | 3, X_TS, KERNEL_DATA},
		{"new ss not present", offsetof(struct tss, ss), SEL_NOTHING, X_SS, SEL_NOTHING},
		{"new ds not present", offsetof(struct tss, ds), SEL_NOTHING, X_NP, SEL_NOTHING},
		{"new ds beyond the GDT", offsetof(struct tss, ds), 0xff8, X_TS, 0xff8},
		{"new es is a TSS", offsetof(struct tss, es), MAIN_TSS, X_TS, MAIN_TSS},
		{"new ldt is no LDT", offsetof(struct tss, ldt), KERNEL_DATA, X_TS, KERNEL_DATA},
		{"new ldt not present", offsetof(struct tss, ldt), SEL_NOTHING, X_TS, SEL_NOTHING},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		main_task();
		set_segment(SEL_NOTHING, 0, 0xfffff,
			    (cases[i].field == offsetof(struct tss, ldt)  ? SEG_LDT
			     : cases[i].field == offsetof(struct tss, cs) ? SEG_CODE32 | SEG_G
									  : SEG_DATA32 | SEG_G) &
				    ~SEG_PRESENT);
		MEM32((uint32_t)&task + cases[i].field) = cases[i].value;
		memcpy(&fault_task, &task, offsetof(struct tss, io_bitmap));
		fault_task.cs = KERNEL_CODE;
		fault_task.ds = fault_task.es = fault_task.ss = fault_task.fs = KERNEL_DATA;
		fault_task.ldt = 0;
		set_segment(SEL_FAULT_TASK, (uint32_t)&fault_task, 103, SEG_TSS32);
		idt[cases[i].vector] = gate(SEL_FAULT_TASK, 0, GATE_TASK);
		MEM32(TASK_STACK - 4) = 0xdead;
		sdm(cases[i].vector == X_SS ? "3A table 8-1" : NULL); /* QEMU has #NP */
		expect_vector(cases[i].name, &jmp_task, DONE_VECTOR, NO_ERROR, stop.after + 2);
		set_default_gate(cases[i].vector, 0);
		sdm(cases[i].vector == X_SS ? "3A table 8-1" : NULL);
		check("  error code", MEM32(TASK_STACK - 4), cases[i].error);
		sdm(cases[i].vector == X_SS ? "3A table 8-1" : NULL);
		check("  raised in", fault_task.link & 0xffff, SEL_TASK);
		check("  the old task is left", TYPE(MAIN_TSS), AVAILABLE);
		sdm("3A 8.3"); /* QEMU leaves the old task's eip there */
		check("  before its first instruction", task.eip - (uint32_t)stop.start, 0);
	}
	set_segment(SEL_NOTHING, 0, 0, 0);
}

static void trap_bit(void)
{
	main_task();
	task.trap = 1;
	set_db6(0);
	sdm("3A 8.2.1 T");
	expect_vector("T bit: #DB before the first instruction", &jmp_task, X_DB, NO_ERROR, stop.start);
	sdm("3A 8.2.1 T");
	check("  dr6.BT", get_db6() & 0xe00f, 0x8000);
	set_db6(0);
	/* L bits of DR7 go off with the switch, G bits stay (SDM vol. 3B 18.2.4) */
	main_task();
	set_db7(0x03);
	set_db0((uint32_t)user_stack);
	expect_vector("DR7 over a task switch", &jmp_task, DONE_VECTOR, NO_ERROR, stop.after + 2);
	check("  L0 off, G0 on", get_db7() & 3, 2);
	set_db7(0);
}

static void address_spaces(void)
{
	main_task();
	task_ldt[1] = segment(PLAYGROUND, 0xfff, SEG_DATA32);
	set_segment(SEL_TASK_LDT, (uint32_t)task_ldt, sizeof(task_ldt) - 1, SEG_LDT);
	task.ldt = SEL_TASK_LDT;
	task.gs = 8 | 4;
	CODE(read_gs, "", "movl %gs:0x10, %eax");
	task.eip = (uint32_t)read_gs.start;
	MEM32(PLAYGROUND + 0x10) = 0x1d7;
	expect_vector("new LDT, gs from it", &jmp_task, DONE_VECTOR, NO_ERROR, read_gs.after + 2);
	check("  eax", out.eax, 0x1d7);
	__asm__ volatile("lldt %w0" : : "r"(0));

	/* another page directory, in which PLAYGROUND is another page */
	paging_on();
	main_task();
	memcpy((void *)(PLAYGROUND + 0x10000), page_directory, 4096);
	memcpy((void *)(PLAYGROUND + 0x11000), page_tables[PLAYGROUND >> 22], 4096);
	MEM32(PLAYGROUND + 0x10000 + (PLAYGROUND >> 22) * 4) = (PLAYGROUND + 0x11000) | PTE_ALL;
	MEM32(PLAYGROUND + 0x11000) = (PLAYGROUND + 0x5000) | PTE_ALL;
	MEM32(PLAYGROUND) = 0x1111;
	MEM32(PLAYGROUND + 0x5000) = 0x2222;
	CODE(read_page, "", "movl 0x400000, %eax");
	task.eip = (uint32_t)read_page.start;
	task.cr3 = PLAYGROUND + 0x10000;
	expect_vector("new page directory", &jmp_task, DONE_VECTOR, NO_ERROR, read_page.after + 2);
	check("  eax", out.eax, 0x2222);
	check("  cr3", get_cr3(), PLAYGROUND + 0x10000);
	set_cr3((uint32_t)page_directory);
	check("  and back", MEM32(PLAYGROUND), 0x1111);
	paging_off();
}

/* To a 16-bit task and from there: upper halves are ffff on loading (SDM vol. 3A 8.6), fs and gs null. */
static void sixteen_bits(void)
{
	main_task();
	set_segment(SEL_CODE16, 0x20000, 0xffff, SEG_CODE16);
	set_segment(SEL_STACK16, 0x30000, 0xffff, SEG_DATA16);
	set_segment(SEL_TASK16, (uint32_t)&task16, sizeof(task16) - 1, SEG_TSS16);
	memcpy((void *)0x20010, stop.start, 16);
	task16.ip = 0x10;
	task16.flags = EFLAGS_CF | 2;
	task16.ax = 0xa1a1;
	task16.bx = 0xb1b1;
	task16.sp = 0x1000;
	task16.cs = SEL_CODE16;
	task16.ss = task16.ds = task16.es = SEL_STACK16;
	expect_vector("jmp to a 16-bit TSS", &jmp_task16, DONE_VECTOR, NO_ERROR,
		      (void *)(0x10 + stop.after - stop.start + 2));
	check("  ax", out.eax & 0xffff, 0xa1a1);
	check("  bx", out.ebx & 0xffff, 0xb1b1);
	check("  sp", out.esp & 0xffff, 0x1000);
	check("  ss ds", out.ss << 16 | out.ds, SEL_STACK16 << 16 | SEL_STACK16);
	check("  flags", out.eflags & 0xffff, EFLAGS_CF | 2);
	check("  old task saved in 32 bits", tss.ebx, 0x11223344);
	check("  busy", TYPE(SEL_TASK16), 3);
	main_task();
	set_segment(SEL_TASK16, (uint32_t)&task16, sizeof(task16) - 1, SEG_TSS16);
	task16.ip = 0x10;
	expect_vector("call to a 16-bit TSS", &call_task16, DONE_VECTOR, NO_ERROR,
		      (void *)(0x10 + stop.after - stop.start + 2));
	check("  link", task16.link, MAIN_TSS);
	check("  NT", out.eflags & EFLAGS_NT, EFLAGS_NT);
	main_task();
	set_segment(SEL_TASK16, (uint32_t)&task16, sizeof(task16) - 2, SEG_TSS16);
	expect_fault("16-bit TSS with limit 42", &jmp_task16, X_TS, SEL_TASK16);
}

void test(void)
{
	main_task();
	switches();
	returns();
	refusals();
	bad_new_state();
	trap_bit();
	address_spaces();
	sixteen_bits();
	main_task();
}
