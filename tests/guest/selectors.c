/*
 * Instructions that look at tables without loading anything: SGDT, SIDT, SLDT, STR and SMSW, which answer at
 * CPL 3 too, LAR, LSL, VERR, VERW over every descriptor type and privilege (SDM vol. 2, vol. 3A 5.10), ARPL.
 */
#include "guest.h"

#define SEL_TEST FREE_SELECTOR
#define SEL_LDT	 (FREE_SELECTOR + 8)

uint8_t stored[16];

CODE(sgdt, "", "sgdt stored");
CODE(sidt, "", "sidt stored");
CODE(sldt_memory, "", "sldt stored");
CODE(sldt_word, "", "sldt %ax");
CODE(sldt_dword, "", "sldt %eax");
CODE(str_memory, "", "str stored");
CODE(str_dword, "", "str %eax");
CODE(smsw_memory, "", "smsw stored");
CODE(smsw_word, "", "smsw %ax");
CODE(smsw_dword, "", "smsw %eax");
CODE(lmsw, "smsw %ax; xorb $8, %al", "lmsw %ax");
CODE_THEN(look, "xorl %esi, %esi; movl $0x12345678, %ecx; movl %ecx, %edx", "lar %eax, %ecx",
	  "setz %bl; lsl %eax, %edx; setz %bh; verr %ax; pushfl; popl %esi; verw %ax; pushfl; popl %edi");
CODE_THEN(look_memory, "movw %ax, stored; movl $0x12345678, %ecx; movl %ecx, %edx", "larw stored, %cx",
	  "lsll stored, %edx");
CODE(arpl_register, "", "arpl %cx, %ax");
CODE(arpl_memory, "movw %ax, stored", "arpl %cx, stored");

static void set_stored(void)
{
	memset(stored, 0xaa, sizeof(stored));
}

static void tables(void)
{
	for (unsigned user = 0; user < 2; user++) {
		print("cpl %u\n", user ? 3 : 0);
		set_stored();
		if (user)
			user_mode();
		expect_done("sgdt", &sgdt);
		check("  limit", MEM16(stored), gdtr.limit);
		check("  base", MEM32(stored + 2), gdtr.base);
		check("  nothing beyond", MEM16(stored + 6), 0xaaaa);
		set_stored();
		if (user)
			user_mode();
		expect_done("sidt", &sidt);
		check("  limit", MEM16(stored), idtr.limit);
		check("  base", MEM32(stored + 2), idtr.base);
		set_stored();
		if (user)
			user_mode();
		expect_done("sldt to memory", &sldt_memory);
		check("  word", MEM32(stored), 0xaaaa0000 | SEL_LDT);
		if (user)
			user_mode();
		in.eax = 0x12345678;
		expect_done("sldt to ax", &sldt_word);
		check("  eax", out.eax, 0x12340000 | SEL_LDT);
		if (user)
			user_mode();
		in.eax = 0x12345678;
		expect_done("sldt to eax", &sldt_dword);
		check("  eax", out.eax, SEL_LDT);
		set_stored();
		if (user)
			user_mode();
		expect_done("str to memory", &str_memory);
		check("  word", MEM32(stored), 0xaaaa0000 | MAIN_TSS);
		if (user)
			user_mode();
		in.eax = 0x12345678;
		expect_done("str to eax", &str_dword);
		check("  eax", out.eax, MAIN_TSS);
		set_stored();
		if (user)
			user_mode();
		expect_done("smsw to memory", &smsw_memory);
		check("  word", MEM32(stored), 0xaaaa0000 | (get_cr0() & 0xffff));
		if (user)
			user_mode();
		in.eax = 0x12345678;
		expect_done("smsw to ax", &smsw_word);
		check("  eax", out.eax, 0x12340000 | (get_cr0() & 0xffff));
		if (user)
			user_mode();
		expect_done("smsw to eax", &smsw_dword);
		check("  low word", out.eax & 0xffff, get_cr0() & 0xffff);
	}
	check("TS", get_cr0() & CR0_TS, 0);
	expect_done("lmsw, TS on", &lmsw);
	check("  TS", get_cr0() & CR0_TS, CR0_TS);
	expect_done("lmsw, TS off", &lmsw);
	check("  TS", get_cr0() & CR0_TS, 0);
}

/* What the four say of a descriptor: bits lar, lsl, verr, verw. */
static uint32_t expected(uint32_t type, uint32_t dpl, uint32_t rpl, uint32_t cpl)
{
	bool is_segment = type & 0x10, code = is_segment && type & 8, conforming = code && type & 4;
	bool visible = conforming || (dpl >= cpl && dpl >= rpl);
	bool lar = is_segment || (type < 16 && 0x1a3e >> type & 1); /* 1-5, 9, 11, 12 */
	bool lsl = is_segment || (type < 16 && 0x0a0e >> type & 1); /* 1-3, 9, 11 */
	bool verr = is_segment && (!code || type & 2);
	bool verw = is_segment && !code && type & 2;

	return visible ? lar | lsl << 1 | verr << 2 | verw << 3 : 0;
}

static uint32_t answers(void)
{
	return (out.ebx & 1) | (out.ebx >> 8 & 1) << 1 | (out.esi >> 6 & 1) << 2 | (out.edi >> 6 & 1) << 3;
}

static void descriptors(void)
{
	for (uint32_t type = 0; type < 32; type++) {
		uint32_t got = 0, want = 0, values = 0;

		for (uint32_t i = 0; i < 8; i++) {
			uint32_t dpl = i & 4 ? 3 : 0, rpl = i & 2 ? 3 : 0, cpl = i & 1 ? 3 : 0;
			uint32_t good = expected(type, dpl, rpl, cpl);

			set_segment(SEL_TEST, 0x12345678, 0x5a123,
				    SEG_PRESENT | type << 8 | dpl << 13 | 0x00500000);
			if (cpl)
				user_mode();
			in.eax = SEL_TEST | rpl;
			run(&look);
			got = got << 4 | answers();
			want = want << 4 | good;
			values += out.vector != DONE_VECTOR;
			values += good & 1 ? (out.ecx & 0x00f0ff00) != (0x00508000 | type << 8 | dpl << 13)
					   : out.ecx != 0x12345678;
			values += good & 2 ? out.edx != 0x5a123 : out.edx != 0x12345678;
		}
		print("type %02x ", type);
		check("lar lsl verr verw by dpl, rpl, cpl", got, want);
		check("  values wrong", values, 0);
	}

	set_segment(SEL_TEST, 0, 0x5a123, SEG_DATA32 | SEG_G);
	in.eax = SEL_TEST;
	run(&look);
	check("limit in pages", out.edx, 0x5a123fff);
	set_segment(SEL_TEST, 0, 0x5a123, SEG_DATA32 & ~SEG_PRESENT);
	in.eax = SEL_TEST;
	run(&look);
	check("not present: as if it were", answers(), 0xf);
	for (unsigned i = 0; i < 4; i++) {
		static const uint32_t nothing[] = {0, 3, 0xff8, 0x1c};

		in.eax = nothing[i];
		run(&look);
		print("selector %x ", nothing[i]);
		check("lar lsl verr verw", answers(), 0);
		check("  ecx, edx stay", out.ecx | out.edx, 0x12345678);
	}
	set_segment(SEL_TEST, 0, 0x5a123, SEG_DATA32);
	in.eax = SEL_TEST;
	expect_done("lar and lsl from memory", &look_memory);
	check("  cx", out.ecx, 0x12349200);
	check("  edx", out.edx, 0x5a123);
}

static void arpl(void)
{
	for (unsigned user = 0; user < 2; user++) {
		for (uint32_t i = 0; i < 16; i++) {
			uint32_t to = 0x1230 | i >> 2, from = 0x4560 | (i & 3), wrong = 0;
			bool raised = (to & 3) < (from & 3);

			for (unsigned memory = 0; memory < 2; memory++) {
				if (user)
					user_mode();
				in.eflags |= EFLAGS_CF | (raised ? 0 : EFLAGS_ZF);
				in.eax = 0x77770000 | to;
				in.ecx = from;
				run(memory ? &arpl_memory : &arpl_register);
				wrong += (memory ? MEM16(stored) : out.eax & 0xffff) !=
					 (raised ? (to & ~3u) | (from & 3) : to);
				wrong += (out.eflags & (EFLAGS_ZF | EFLAGS_CF)) !=
					 (EFLAGS_CF | (raised ? EFLAGS_ZF : 0));
				wrong += out.eax >> 16 != 0x7777;
			}
			if (!wrong && i < 15)
				continue;
			print("arpl at cpl %u, up to %u to %u ", user ? 3 : 0, i & 3, i >> 2);
			check("wrong", wrong, 0);
		}
	}
}

void test(void)
{
	static uint64_t ldt[3] __attribute__((aligned(8)));

	set_segment(SEL_LDT, (uint32_t)ldt, sizeof(ldt) - 1, SEG_LDT);
	__asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
	tables();
	descriptors();
	arpl();
}
