/*
 * Every exception that an instruction can raise, its error code, the instruction that eip is left at
 * (SDM vol. 3A 6.15), which of two wins (6.9), and faults in the delivery of faults (table 6-5).
 */
#include "paging.h"

#define SEL_NOT_PRESENT (FREE_SELECTOR + 0x00)
#define SEL_EXEC_ONLY	(FREE_SELECTOR + 0x08)
#define SEL_READ_ONLY	(FREE_SELECTOR + 0x10)
#define SEL_CODE1	(FREE_SELECTOR + 0x18) /* ring 1 code and stack */
#define SEL_DATA1	(FREE_SELECTOR + 0x20)
#define SEL_NP_CODE	(FREE_SELECTOR + 0x28)
#define SEL_SYSTEM	(FREE_SELECTOR + 0x30) /* an LDT descriptor, where a segment is wanted */
#define SEL_DF_TSS	(FREE_SELECTOR + 0x38)
#define SEL_NP_DATA1	(FREE_SELECTOR + 0x40)
#define SEL_BEYOND	0x0ff8
#define SEL_LDT_NONE	0x000c /* TI set, but LDTR is null */

#define ABSENT		(PLAYGROUND + 0x5000) /* a page that has no mapping where paging is on */

CODE(div_zero, "xorl %edx, %edx; xorl %ecx, %ecx", "divl %ecx");
CODE(div_overflow, "movl $2, %edx; movl $2, %ecx", "divl %ecx");
CODE(idiv_overflow, "movl $0x80000000, %eax; cdq; movl $-1, %ecx", "idivl %ecx");
CODE(idiv_byte, "movw $0x8000, %ax; movb $-1, %cl", "idivb %cl");
CODE(aam_zero, "movb $7, %al", ".byte 0xd4, 0");
CODE(icebp, "", ".byte 0xf1");
CODE(int_1, "", "int $1");
CODE(int3, "", "int3");
CODE(int_3, "", ".byte 0xcd, 3");
CODE(into_set, "movb $0x7f, %al; incb %al", "into");
CODE(into_clear, "xorl %eax, %eax", "into");
CODE(nop, "", "nop");

int32_t bounds[2] = {-5, 10};
int16_t bounds16[2] = {-5, 10};
CODE(bound_low, "movl $-6, %eax", "bound %eax, bounds");
CODE(bound_high, "movl $11, %eax", "bound %eax, bounds");
CODE(bound_edge, "movl $10, %eax; movl $-5, %ecx", "bound %eax, bounds; bound %ecx, bounds");
CODE(bound_word, "movl $0x1000b, %eax", "bound %ax, bounds16");

CODE(ud2, "", "ud2");
CODE(ud1, "", ".byte 0x0f, 0xb9, 0xc0");
CODE(lock_nop, "", ".byte 0xf0, 0x90");
CODE(lock_mov, "", ".byte 0xf0, 0x89, 0x05; .long bounds");
CODE(lock_register, "", ".byte 0xf0, 0x01, 0xc0");
CODE(lock_cmp, "", ".byte 0xf0, 0x39, 0x05; .long bounds");
CODE(lock_clts, "", ".byte 0xf0, 0x0f, 0x06");
CODE(lea_register, "", ".byte 0x8d, 0xc0");
CODE(mov_to_cs, "movw %ds, %ax", ".byte 0x8e, 0xc8");
CODE(mov_from_sreg6, "", ".byte 0x8c, 0xf0");
CODE(mov_cr1, "", ".byte 0x0f, 0x20, 0xc8");
CODE(mov_cr5, "", ".byte 0x0f, 0x22, 0xe8");
CODE(les_register, "", ".byte 0xc4, 0xc0");
CODE(bound_register, "", ".byte 0x62, 0xc0");
CODE(lgdt_register, "", ".byte 0x0f, 0x01, 0xd0");
CODE(invlpg_register, "", ".byte 0x0f, 0x01, 0xf8");
CODE(cmpxchg8b_register, "", ".byte 0x0f, 0xc7, 0xc8");
CODE(ff_7, "", ".byte 0xff, 0xf8");
CODE(fe_7, "", ".byte 0xfe, 0xf8");
CODE(too_long, "", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
CODE(long_enough, "", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");

CODE(hlt, "", "hlt");
CODE(cli, "", "cli");
CODE(sti, "", "sti");
CODE(in_byte, "", "inb $0x80, %al");
CODE(out_byte, "", "outb %al, $0x80");
CODE(insb, "movl $bounds, %edi; movw $0x80, %dx", "insb");
CODE(clts, "", "clts");
CODE(mov_cr0, "", "movl %cr0, %eax");
CODE(to_cr3, "", "movl %eax, %cr3");
CODE(mov_dr7, "", "movl %dr7, %eax");
CODE(lgdt, "", "lgdt gdtr");
CODE(lidt, "", "lidt idtr");
CODE(lldt, "xorl %eax, %eax", "lldt %ax");
CODE(ltr, "movw $0x28, %ax", "ltr %ax");
CODE(lmsw, "smsw %ax", "lmsw %ax");
CODE(invd, "", "invd");
CODE(wbinvd, "", "wbinvd");
CODE(invlpg_, "", "invlpg 0");
CODE(rdmsr, "movl $0x174, %ecx", "rdmsr");
CODE(rdtsc, "", "rdtsc");

CODE(int_60, "", "int $0x60");
CODE(load_ds, "", "movw %ax, %ds");
CODE(load_es_pop, "pushl %eax", "popl %es");
CODE(load_ss, "", "movw %ax, %ss");
CODE(load_lds, "movl %eax, bounds + 4", "lds bounds, %ebx");
CODE(jmp_far, "movl %eax, far_pointer + 4", "ljmp *far_pointer");
CODE(call_far, "movl %eax, far_pointer + 4", "lcall *far_pointer");
uint32_t far_pointer[2];

CODE(cr0_pg_without_pe, "movl $0x80000010, %eax", "movl %eax, %cr0");
CODE(cr0_nw_without_cd, "movl %cr0, %eax; andl $~0x40000000, %eax; orl $0x20000000, %eax", "movl %eax, %cr0");
CODE(cr4_reserved, "movl %cr4, %eax; orl $0x80000000, %eax", "movl %eax, %cr4");

CODE(read_absent, "",
     "movl "
     "0x405000, %eax");
CODE(write_absent, "", "movl %eax, 0x405000");
CODE(jmp_absent, "movl $0x405000, %eax", "jmp *%eax");
CODE(add_absent, "", "addl %eax, 0x405000");
CODE(div_absent, "xorl %eax, %eax; xorl %edx, %edx", "divl 0x405000");
CODE(push_absent, "", "pushl 0x405000");
CODE(pop_absent, "pushl $7", "popl 0x405000");
CODE(fld_absent, "", "fldl 0x405000");
CODE(enter_absent, "movl $0x406000, %esp", "enter $8, $0");
CODE(movs_absent, "movl $0x404ff8, %esi; movl $0x400000, %edi; movl $4, %ecx; cld", "rep movsl");

CODE(unaligned, "movl $bounds + 1, %ebx", "movl (%ebx), %eax");
CODE(unaligned_word, "movl $bounds + 1, %ebx", "movw (%ebx), %ax");
CODE(aligned, "movl $bounds, %ebx", "movl (%ebx), %eax");
CODE(unaligned_push, "movl $user_stack + 8001, %esp", "pushl %eax");

static void divide_error(void)
{
	expect_fault("div by zero", &div_zero, X_DE, NO_ERROR);
	expect_fault("div overflow", &div_overflow, X_DE, NO_ERROR);
	check("  edx", out.edx, 2);
	expect_fault("idiv overflow", &idiv_overflow, X_DE, NO_ERROR);
	check("  eax", out.eax, 0x80000000);
	expect_fault("idiv byte overflow", &idiv_byte, X_DE, NO_ERROR);
	expect_fault("aam 0", &aam_zero, X_DE, NO_ERROR);
	user_mode();
	expect_fault("div by zero, cpl 3", &div_zero, X_DE, NO_ERROR);
	check("  ss", out.ss, USER_DATA);
	check("  esp", out.esp, USER_STACK);
}

static void traps(void)
{
	sdm("3A 6.15 #DB");
	expect_trap("icebp", &icebp, X_DB, NO_ERROR);
	expect_trap("int 1", &int_1, X_DB, NO_ERROR);
	expect_trap("int3", &int3, X_BP, NO_ERROR);
	expect_trap("int 3", &int_3, X_BP, NO_ERROR);
	expect_trap("into, OF", &into_set, X_OF, NO_ERROR);
	expect_done("into, no OF", &into_clear);
	user_mode();
	sdm("3A 6.15 #DB");
	expect_trap("icebp, cpl 3: no DPL check", &icebp, X_DB, NO_ERROR);
	user_mode();
	expect_fault("int 1, cpl 3", &int_1, X_GP, 1 * 8 + 2);
	user_mode();
	expect_trap("int3, cpl 3", &int3, X_BP, NO_ERROR);
	user_mode();
	expect_trap("into, cpl 3", &into_set, X_OF, NO_ERROR);
	set_default_gate(X_BP, 0);
	set_default_gate(X_OF, 0);
	user_mode();
	expect_fault("int3, cpl 3, gate DPL 0", &int3, X_GP, 3 * 8 + 2);
	user_mode();
	expect_fault("into, cpl 3, gate DPL 0", &into_set, X_GP, 4 * 8 + 2);
	set_default_gate(X_BP, 3);
	set_default_gate(X_OF, 3);
}

static void bound(void)
{
	expect_fault("bound, below", &bound_low, X_BR, NO_ERROR);
	expect_fault("bound, above", &bound_high, X_BR, NO_ERROR);
	expect_done("bound, both edges", &bound_edge);
	expect_fault("bound, word", &bound_word, X_BR, NO_ERROR);
}

static void invalid_opcode(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		const char *sdm;
	} undefined[] = {
		{"ud2", &ud2},
		{"ud1", &ud1},
		{"lock nop", &lock_nop},
		{"lock mov", &lock_mov, "2A LOCK"},
		{"lock add register", &lock_register},
		{"lock cmp", &lock_cmp},
		{"lock clts", &lock_clts, "2A LOCK"},
		{"lea register", &lea_register},
		{"mov to cs", &mov_to_cs},
		{"mov from sreg 6", &mov_from_sreg6},
		{"mov from cr1", &mov_cr1},
		{"mov to cr5", &mov_cr5},
		{"les register", &les_register},
		{"bound register", &bound_register},
		{"lgdt register", &lgdt_register},
		{"invlpg register", &invlpg_register},
		{"cmpxchg8b register", &cmpxchg8b_register},
		{"ff /7", &ff_7},
		{"fe /7", &fe_7},
	};

	for (unsigned i = 0; i < sizeof(undefined) / sizeof(undefined[0]); i++) {
		sdm(undefined[i].sdm);
		expect_fault(undefined[i].name, undefined[i].code, X_UD, NO_ERROR);
		if (undefined[i].code == &mov_cr1 || undefined[i].code == &mov_cr5)
			continue; /* #UD or #GP at CPL 3: the manual does not say which */
		user_mode();	  /* #UD comes before the privilege check, where there is one */
		sdm(undefined[i].sdm);
		expect_fault("  at cpl 3", undefined[i].code, X_UD, NO_ERROR);
	}
	expect_fault("16 bytes of instruction", &too_long, X_GP, 0);
	expect_done("15 bytes of instruction", &long_enough);
}

static void privileged(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
	} instructions[] = {
		{"hlt", &hlt},	     {"cli", &cli},	    {"sti", &sti},     {"in", &in_byte},
		{"out", &out_byte},  {"insb", &insb},	    {"clts", &clts},   {"mov cr0", &mov_cr0},
		{"to cr3", &to_cr3}, {"mov dr7", &mov_dr7}, {"lgdt", &lgdt},   {"lidt", &lidt},
		{"lldt", &lldt},     {"ltr", &ltr},	    {"lmsw", &lmsw},   {"invd", &invd},
		{"wbinvd", &wbinvd}, {"invlpg", &invlpg_},  {"rdmsr", &rdmsr},
	};

	for (unsigned i = 0; i < sizeof(instructions) / sizeof(instructions[0]); i++) {
		user_mode();
		expect_fault(instructions[i].name, instructions[i].code, X_GP, 0);
	}
	user_mode();
	expect_done("rdtsc, cpl 3", &rdtsc);
	set_cr4(get_cr4() | CR4_TSD);
	user_mode();
	expect_fault("rdtsc, cpl 3, TSD", &rdtsc, X_GP, 0);
	expect_done("rdtsc, cpl 0, TSD", &rdtsc);
	set_cr4(get_cr4() & ~CR4_TSD);
}

static void control_registers(void)
{
	if (on_tcg) /* QEMU takes the first and the last, and hangs on the other */
		return;
	sdm("3A 2.5");
	expect_fault("cr0.NW without CD", &cr0_nw_without_cd, X_GP, 0);
	sdm("3A 2.5");
	expect_fault("cr4 reserved bit", &cr4_reserved, X_GP, 0);
	sdm("3A 2.5");
	expect_fault("cr0.PG without PE", &cr0_pg_without_pe, X_GP, 0);
}

static void idt_errors(void)
{
	user_mode();
	expect_fault("int 60, cpl 3, gate DPL 0", &int_60, X_GP, 0x60 * 8 + 2);
	set_gate(0x60, 0, GATE_INT32 & ~SEG_PRESENT);
	expect_fault("int 60, gate not present", &int_60, X_NP, 0x60 * 8 + 2);
	user_mode();
	expect_fault("int 60, cpl 3, gate DPL 0 and not present", &int_60, X_GP, 0x60 * 8 + 2);
	set_gate(0x60, 0, GATE_CALL32);
	expect_fault("int 60, call gate", &int_60, X_GP, 0x60 * 8 + 2);
	set_gate(0x60, 0, 0x8000 | 0x0d00);
	expect_fault("int 60, reserved type", &int_60, X_GP, 0x60 * 8 + 2);
	idt[0x60] = gate(0, 0, GATE_INT32);
	expect_fault("int 60, null selector", &int_60, X_GP, 0);
	idt[0x60] = gate(SEL_BEYOND, 0, GATE_INT32);
	expect_fault("int 60, selector beyond the GDT", &int_60, X_GP, SEL_BEYOND);
	idt[0x60] = gate(KERNEL_DATA, 0, GATE_INT32);
	expect_fault("int 60, data segment", &int_60, X_GP, KERNEL_DATA);
	idt[0x60] = gate(SEL_NP_CODE, 0, GATE_INT32);
	expect_fault("int 60, code segment not present", &int_60, X_NP, SEL_NP_CODE);
	idt[0x60] = gate(USER_CODE, 0, GATE_INT32);
	expect_fault("int 60, cpl 0 to DPL 3", &int_60, X_GP, USER_CODE & ~3);
	set_default_gate(0x60, 0);

	idtr.limit = 0x60 * 8 - 1;
	__asm__ volatile("lidt idtr");
	expect_fault("int 60, beyond the limit", &int_60, X_GP, 0x60 * 8 + 2);
	idtr.limit = 0x60 * 8 + 6;
	__asm__ volatile("lidt idtr");
	expect_fault("int 60, last byte beyond the limit", &int_60, X_GP, 0x60 * 8 + 2);
	idtr.limit = 0x60 * 8 + 7;
	__asm__ volatile("lidt idtr");
	expect_trap("int 60, last entry", &int_60, 0x60, NO_ERROR);
	idtr.limit = sizeof(idt) - 1;
	__asm__ volatile("lidt idtr");
}

static void expect_load(const char *label, const struct snippet *code, uint32_t selector, unsigned vector)
{
	in.eax = selector;
	expect_fault(label, code, vector, selector & 0xfffc);
}

static void segment_loads(void)
{
	expect_load("ds, beyond the GDT", &load_ds, SEL_BEYOND, X_GP);
	expect_load("ds, beyond the GDT, RPL 3", &load_ds, SEL_BEYOND | 3, X_GP);
	expect_load("ds, null LDT", &load_ds, SEL_LDT_NONE, X_GP);
	expect_load("ds, not present", &load_ds, SEL_NOT_PRESENT, X_NP);
	expect_load("ds, execute-only", &load_ds, SEL_EXEC_ONLY, X_GP);
	expect_load("ds, system segment", &load_ds, SEL_SYSTEM, X_GP);
	expect_load("es by pop, not present", &load_es_pop, SEL_NOT_PRESENT, X_NP);
	check("  esp", out.esp, SNIPPET_STACK - 4);
	expect_load("lds, not present", &load_lds, SEL_NOT_PRESENT, X_NP);
	check("  ebx", out.ebx, 0);
	in.eax = 0;
	expect_done("ds, null", &load_ds);
	check("  ds", out.ds, 0);
	in.eax = 3;
	expect_done("ds, null with RPL", &load_ds);
	check("  ds", out.ds, 3);

	expect_load("ss, null", &load_ss, 0, X_GP);
	expect_load("ss, not present", &load_ss, SEL_NOT_PRESENT, X_SS);
	expect_load("ss, read-only", &load_ss, SEL_READ_ONLY, X_GP);
	expect_load("ss, code", &load_ss, KERNEL_CODE, X_GP);
	expect_load("ss, RPL 3", &load_ss, KERNEL_DATA | 3, X_GP);
	expect_load("ss, DPL 3", &load_ss, USER_DATA & ~3, X_GP);
	expect_load("ss, beyond the GDT", &load_ss, SEL_BEYOND, X_GP);

	user_mode();
	expect_load("ds, cpl 3, DPL 0", &load_ds, KERNEL_DATA, X_GP);
	user_mode();
	expect_load("ds, cpl 3, DPL 0, RPL 3", &load_ds, KERNEL_DATA | 3, X_GP);
	user_mode();
	expect_load("ss, cpl 3, DPL 0", &load_ss, KERNEL_DATA, X_GP);
	user_mode();
	expect_load("ss, cpl 3, RPL 0", &load_ss, USER_DATA & ~3, X_GP);
	user_mode();
	in.eax = 3;
	expect_fault("ss, cpl 3, null", &load_ss, X_GP, 0);

	expect_load("jmp far, null", &jmp_far, 0, X_GP);
	expect_load("jmp far, data", &jmp_far, KERNEL_DATA, X_GP);
	expect_load("jmp far, not present", &jmp_far, SEL_NP_CODE, X_NP);
	expect_load("jmp far, DPL 3", &jmp_far, USER_CODE, X_GP);
	expect_load("jmp far, beyond the GDT", &jmp_far, SEL_BEYOND, X_GP);
	expect_load("call far, not present", &call_far, SEL_NP_CODE, X_NP);
	check("  esp", out.esp, SNIPPET_STACK);
	user_mode();
	expect_load("jmp far, cpl 3 to DPL 0", &jmp_far, KERNEL_CODE, X_GP);
}

/* Faults while a gate to ring 1 takes its stack from the TSS (SDM vol. 3A 6.12.1.1 and INT n). */
static void inner_stack_errors(void)
{
	static const struct {
		const char *name;
		uint32_t ss1, vector, error;
	} cases[] = {
		{"ring 1 stack, null", 0, X_TS, 0},
		{"ring 1 stack, beyond the GDT", SEL_BEYOND | 1, X_TS, SEL_BEYOND},
		{"ring 1 stack, RPL 0", SEL_DATA1, X_TS, SEL_DATA1},
		{"ring 1 stack, DPL 0", KERNEL_DATA | 1, X_TS, KERNEL_DATA},
		{"ring 1 stack, code", SEL_CODE1 | 1, X_TS, SEL_CODE1},
		{"ring 1 stack, not present", SEL_NP_DATA1 | 1, X_SS, SEL_NP_DATA1},
	};

	idt[0x61] = gate(SEL_CODE1, (uint32_t)nop.start, GATE_INT32 | SEG_DPL(3));
	tss.esp1 = (uint32_t)ring0_stack + 4096;
	CODE(int_61, "", "int $0x61");
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tss.ss1 = cases[i].ss1;
		user_mode();
		if (cases[i].vector == X_SS)
			sdm("2A INT n");
		expect_fault(cases[i].name, &int_61, cases[i].vector, cases[i].error);
	}
	tss.ss1 = SEL_DATA1 | 1;
	user_mode();
	expect_done("ring 1 stack, good", &int_61);
	check("  cs", out.cs, SEL_CODE1 | 1);
	check("  ss", out.ss, SEL_DATA1 | 1);
	check("  esp", out.esp, tss.esp1 - 20);
	check("  pushed ss", MEM32(tss.esp1 - 4), USER_DATA);
	check("  pushed esp", MEM32(tss.esp1 - 8), USER_STACK);
	check("  pushed eflags", MEM32(tss.esp1 - 12), 2);
	check("  pushed cs", MEM32(tss.esp1 - 16), USER_CODE);
	check("  pushed eip", MEM32(tss.esp1 - 20), (uint32_t)int_61.after);
}

static void page_faults(void)
{
	paging_on();
	map(ABSENT, 0);
	expect_fault("read", &read_absent, X_PF, 0);
	expect_fault("write", &write_absent, X_PF, PF_W);
	sdm("3A 4.7 W/R: a write"); /* QEMU reads first, as if by two instructions */
	expect_fault("read and write", &add_absent, X_PF, PF_W);
	expect_vector("fetch", &jmp_absent, X_PF, 0, (void *)ABSENT);
	expect_fault("push from memory", &push_absent, X_PF, 0);
	check("  esp", out.esp, SNIPPET_STACK);
	expect_fault("pop to memory", &pop_absent, X_PF, PF_W);
	check("  esp", out.esp, SNIPPET_STACK - 4);
	expect_fault("div: #PF before #DE", &div_absent, X_PF, 0);
	user_mode();
	expect_fault("enter", &enter_absent, X_PF, PF_W | PF_U);
	check("  esp", out.esp, ABSENT + 0x1000);
	expect_fault("rep movs", &movs_absent, X_PF, 0);
	check("  ecx", out.ecx, 2);
	check("  esi", out.esi, ABSENT);
	check("  edi", out.edi, PLAYGROUND + 8);
	user_mode();
	expect_fault("read, cpl 3", &read_absent, X_PF, PF_U);
	user_mode();
	expect_fault("write, cpl 3", &write_absent, X_PF, PF_W | PF_U);
	user_mode();
	expect_vector("fetch, cpl 3", &jmp_absent, X_PF, PF_U, (void *)ABSENT);
	set_cr0(get_cr0() | CR0_EM);
	expect_fault("#NM before #PF", &fld_absent, X_NM, NO_ERROR);
	set_cr0(get_cr0() & ~CR0_EM);
	expect_fault("fld", &fld_absent, X_PF, 0);

	/* an instruction across the edge of a missing page: the fetch fault comes before #UD and #GP */
	MEM8(ABSENT - 1) = 0x0f;
	in.eax = ABSENT - 1;
	CODE(jmp_eax, "", "jmp *%eax");
	expect_vector("0f | missing page", &jmp_eax, X_PF, 0, (void *)(ABSENT - 1));
	MEM8(ABSENT - 1) = 0xf4;
	user_mode();
	in.eax = ABSENT - 1;
	expect_vector("hlt | missing page, cpl 3", &jmp_eax, X_GP, 0, (void *)(ABSENT - 1));
	MEM8(ABSENT - 1) = 0x90;
	in.eax = ABSENT - 1;
	expect_vector("nop | missing page", &jmp_eax, X_PF, 0, (void *)ABSENT);
	MEM8(ABSENT - 2) = 0xcd;
	MEM8(ABSENT - 1) = DONE_VECTOR;
	in.eax = ABSENT - 2;
	expect_vector("int 30 | missing page", &jmp_eax, DONE_VECTOR, NO_ERROR, (void *)ABSENT);
	paging_off();
}

static void alignment(void)
{
	set_cr0(get_cr0() | CR0_AM);
	user_mode();
	expect_done("unaligned, AC clear", &unaligned);
	user_mode();
	in.eflags |= EFLAGS_AC;
	sdm("3A 6.15 #AC");
	expect_fault("unaligned, cpl 3, AC", &unaligned, X_AC, 0);
	user_mode();
	in.eflags |= EFLAGS_AC;
	sdm("3A 6.15 #AC");
	expect_fault("unaligned word, cpl 3, AC", &unaligned_word, X_AC, 0);
	user_mode();
	in.eflags |= EFLAGS_AC;
	sdm("3A 6.15 #AC");
	expect_fault("unaligned push, cpl 3, AC", &unaligned_push, X_AC, 0);
	user_mode();
	in.eflags |= EFLAGS_AC;
	expect_done("aligned, cpl 3, AC", &aligned);
	in.eflags |= EFLAGS_AC;
	expect_done("unaligned, cpl 0, AC", &unaligned);
	set_cr0(get_cr0() & ~CR0_AM);
	user_mode();
	in.eflags |= EFLAGS_AC;
	expect_done("unaligned, cpl 3, AC, no AM", &unaligned);
}

static void resume_flag(void)
{
	run(&ud2);
	sdm("3B 18.3.1.1");
	check("RF pushed by a fault", out.eflags & EFLAGS_RF, EFLAGS_RF);
	run(&int3);
	check("RF pushed by a trap", out.eflags & EFLAGS_RF, 0);
	run(&nop);
	check("RF pushed by int n", out.eflags & EFLAGS_RF, 0);
}

/* Gates of the first exception missing: what comes instead (SDM vol. 3A table 6-5 and 6.13 for EXT). */
static void nested(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		unsigned first, second;
		uint32_t error;
	} cases[] = {
		{"#UD without a gate: #NP", &ud2, X_UD, X_NP, X_UD * 8 + 3},
		{"int3 without a gate: #NP", &int3, X_BP, X_NP, X_BP * 8 + 2},
		{"#BR without a gate: #NP", &bound_low, X_BR, X_NP, X_BR * 8 + 3},
		{"#DE without a gate: #DF", &div_zero, X_DE, X_DF, 0},
		{"#GP without a gate: #DF", &too_long, X_GP, X_DF, 0},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		set_gate(cases[i].first, 0, GATE_INT32 & ~SEG_PRESENT);
		if (cases[i].error & 1)
			sdm("3A 6.13 EXT");
		expect_fault(cases[i].name, cases[i].code, cases[i].second, cases[i].error);
		set_default_gate(cases[i].first, cases[i].first == X_BP ? 3 : 0);
	}

	paging_on();
	map(ABSENT, 0);
	set_gate(X_PF, 0, GATE_INT32 & ~SEG_PRESENT);
	expect_fault("#PF without a gate: #DF", &read_absent, X_DF, 0);
	set_default_gate(X_PF, 0);

	/* The IDT so placed that vectors below #PF are on a page of their own, which is then taken away. */
	idtr.base = ABSENT + 0x1000 - X_PF * 8;
	map(ABSENT, ABSENT | PTE_ALL);
	memcpy((void *)idtr.base, idt, sizeof(idt));
	__asm__ volatile("lidt idtr");
	map(ABSENT, 0);
	expect_fault("#UD, its gate on a missing page: #PF", &ud2, X_PF, 0);
	check("  cr2 is the gate", out.cr2 - idtr.base, X_UD * 8);
	expect_fault("#GP, its gate on a missing page: #PF", &too_long, X_PF, 0);
	check("  cr2 is the gate", out.cr2 - idtr.base, X_GP * 8);
	user_mode();
	expect_fault("#UD at cpl 3, the same: #PF is the supervisor's", &ud2, X_PF, 0);
	check("  cr2 is the gate", out.cr2 - idtr.base, X_UD * 8);
	idtr.base = (uint32_t)idt;
	__asm__ volatile("lidt idtr");
	paging_off();
}

/*
 * No stack to deliver on: #DF through a task gate (the way that 6.15 #DF recommends). The task comes back
 * into C with the double fault's error code and the state that the hardware saved in the main TSS.
 */
static struct tss df_tss;
static uint8_t df_stack[4096] __attribute__((aligned(16)));
uint32_t df_error, df_resume_esp;
LABEL(df_task);
LABEL(run_into_df);
__asm__(".text\n"
	"df_task:\n"
	"	popl	df_error\n"
	"	movb	$0x89, gdt + 0x28 + 5\n" /* the main TSS is busy and nested: take it over again */
	"	pushfl; andl $~0x4000, (%esp); popfl\n"
	"	movw	$0x28, %ax\n"
	"	ltr	%ax\n"
	"	movl	df_resume_esp, %esp\n"
	"	popal\n"
	"	ret\n"
	"run_into_df:\n"
	"	pushal\n"
	"	movl	%esp, df_resume_esp\n"
	"	movl	$0x405800, %esp\n" /* on the missing page */
	"	.globl	df_push\n"
	"df_push:\n"
	"	pushl	%eax\n");
LABEL(df_push);

static void double_fault_task(void)
{
	paging_on();
	df_tss.cr3 = get_cr3();
	df_tss.eip = (uint32_t)df_task;
	df_tss.eflags = 2;
	df_tss.esp = (uint32_t)df_stack + sizeof(df_stack);
	df_tss.cs = KERNEL_CODE;
	df_tss.ds = df_tss.es = df_tss.ss = df_tss.fs = df_tss.gs = KERNEL_DATA;
	df_tss.io_map = offsetof(struct tss, io_bitmap);
	set_segment(SEL_DF_TSS, (uint32_t)&df_tss, 103, SEG_TSS32);
	idt[X_DF] = gate(SEL_DF_TSS, 0, GATE_TASK);
	tss.cr3 = get_cr3();
	map(ABSENT, 0);
	df_error = 0x1234;
	__asm__ volatile("call run_into_df" : : : "memory", "cc");
	check("push on a missing stack: #DF by task gate, error code", df_error, 0);
	check("  saved eip", tss.eip - (uint32_t)df_push, 0);
	check("  saved esp", tss.esp, 0x405800);
	check("  saved cs", tss.cs, KERNEL_CODE);
	check("  back link", df_tss.link & 0xffff, MAIN_TSS);
	check("  cr2", get_cr2(), 0x4057fc);
	set_default_gate(X_DF, 0);
	paging_off();
}

__asm__(".text\nskip_divide: addl $2, (%esp); iretl");
LABEL(skip_divide);

/* One division that fails and succeeds by turns, the turns of different lengths. */
static void many_divisions(void)
{
	uint32_t skipped = 0, wrong = 0;

	set_gate(X_DE, skip_divide, GATE_INT32);
	for (uint32_t length = 1; length < 300; length *= 2) {
		for (uint32_t i = 0; i < 4 * length; i++) {
			volatile uint32_t chosen = i / length & 1 ? 7 : 0; /* one instruction for both */
			uint32_t low = 1000000 + i, high = 0, divisor = chosen;

			__asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "c"(divisor) : "cc", "memory");
			if (divisor)
				wrong += low != (1000000 + i) / 7 || high != (1000000 + i) % 7;
			else
				skipped += low == 1000000 + i && high == 0;
		}
	}
	set_default_gate(X_DE, 0);
	check("divisions by zero", skipped, 2 * 511);
	check("other results that are wrong", wrong, 0);
}

void test(void)
{
	set_segment(SEL_NOT_PRESENT, 0, 0xfffff, (SEG_DATA32 | SEG_G) & ~SEG_PRESENT);
	set_segment(SEL_EXEC_ONLY, 0, 0xfffff, (SEG_CODE32 | SEG_G) & ~SEG_WRITABLE);
	set_segment(SEL_READ_ONLY, 0, 0xfffff, (SEG_DATA32 | SEG_G) & ~SEG_WRITABLE);
	set_segment(SEL_CODE1, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_DATA1, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_NP_DATA1, 0, 0xfffff, (SEG_DATA32 | SEG_G | SEG_DPL(1)) & ~SEG_PRESENT);
	set_segment(SEL_NP_CODE, 0, 0xfffff, (SEG_CODE32 | SEG_G) & ~SEG_PRESENT);
	set_segment(SEL_SYSTEM, 0, 0xffff, SEG_LDT);

	divide_error();
	many_divisions();
	traps();
	bound();
	invalid_opcode();
	privileged();
	control_registers();
	idt_errors();
	segment_loads();
	inner_stack_errors();
	page_faults();
	alignment();
	resume_flag();
	nested();
	double_fault_task();
}
