/* test_emit.c - every emitted form, disassembled again by Capstone and compared with what was asked for; and
 * the translation rules, guest bytes against the host code they become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <capstone/capstone.h>

#include "translator/emit.h"
#include "translator/translator.h"

static csh handle;
static uint8_t buf[256];
static char text[1024];

static const char *disassemble(const uint8_t *code, size_t len)
{
	cs_insn *in;
	size_t n = cs_disasm(handle, code, len, 0, 0, &in);
	size_t used = 0;

	text[0] = 0;
	for (size_t i = 0; i < n; i++) {
		used += in[i].size;
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s%s%s", i ? "; " : "",
			 in[i].mnemonic, in[i].op_str[0] ? " " : "", in[i].op_str);
	}
	if (n)
		cs_free(in, n);
	assert_int_equal(used, len);
	return text;
}

static struct emitter start(void)
{
	return (struct emitter){.p = buf, .base = buf, .limit = buf + sizeof buf};
}

#define EXPECT(expected, call)                                                                               \
	do {                                                                                                 \
		struct emitter e = start();                                                                  \
		call;                                                                                        \
		assert_string_equal(disassemble(buf, (size_t)(e.p - buf)), expected);                        \
	} while (0)

static struct host_mem mem(int base, int index, unsigned scale, int32_t disp)
{
	return (struct host_mem){
		.base = (int8_t)base, .index = (int8_t)index, .scale = (uint8_t)scale, .disp = disp};
}

static void moves(void **state)
{
	struct host_mem m;

	(void)state;
	EXPECT("mov eax, r12d", em_mov_rr32(&e, RAX, R12));
	EXPECT("mov r9, rcx", em_mov_rr64(&e, R9, RCX));
	EXPECT("mov r8d, 0x12345678", em_mov_ri32(&e, R8, 0x12345678));
	EXPECT("mov ebx, 5", em_mov_ri32(&e, RBX, 5));
	m = mem(R15, -1, 1, 0x1234);
	EXPECT("mov r10d, dword ptr [r15 + 0x1234]", em_load32(&e, R10, &m));
	EXPECT("mov r10, qword ptr [r15 + 0x1234]", em_load64(&e, R10, &m));
	EXPECT("mov dword ptr [r15 + 0x1234], esi", em_store32(&e, &m, RSI));
	EXPECT("mov dword ptr [r15 + 0x1234], 0x200", em_store_i32(&e, &m, 0x200));
	EXPECT("movzx r8d, word ptr [r15 + 0x1234]", em_movzx16_m(&e, R8, &m));
	EXPECT("movzx r9d, r8w", em_movzx16_r(&e, R9, R8));
	EXPECT("movzx r11d, al", em_movzx8_r(&e, R11, RAX));
	EXPECT("lea r12d, [r12 - 4]", em_lea_disp(&e, R12, R12, -4));
	EXPECT("lea r10d, [r10 + r11]", em_lea_add(&e, R10, R10, R11));
}

/* Every base, index, scale and displacement size encodes and decodes to the same operand. */
static void addressing(void **state)
{
	static const char *const name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
	static const int32_t disps[] = {0, 1, -1, 127, -128, 128, -129, 0x7fffffff};

	(void)state;
	for (int base = 0; base < 16; base++)
		for (int index = -1; index < 16; index++)
			for (unsigned scale = 1; scale <= 8; scale *= 2)
				for (unsigned d = 0; d < sizeof disps / sizeof disps[0]; d++) {
					struct host_mem m = mem(base, index, scale, disps[d]);
					struct emitter e = start();
					cs_insn *in;
					if (index == RSP || (index < 0 && scale > 1))
						continue;
					em_load64(&e, R9, &m);
					assert_int_equal(
						cs_disasm(handle, buf, (size_t)(e.p - buf), 0, 0, &in), 1);
					const cs_x86_op *op = &in->detail->x86.operands[1];
					assert_string_equal(cs_reg_name(handle, op->mem.base), name[base]);
					if (index >= 0) {
						assert_string_equal(cs_reg_name(handle, op->mem.index),
								    name[index]);
						assert_int_equal(op->mem.scale, scale);
					}
					assert_int_equal(op->mem.disp, disps[d]);
					cs_free(in, 1);
				}
	struct host_mem m = mem(-1, -1, 1, 0x1000);
	m.gs = m.addr32 = true;
	EXPECT("mov ecx, dword ptr gs:[0x1000]", em_load32(&e, RCX, &m));
	m = mem(-1, RSI, 4, 0x1000);
	EXPECT("mov ecx, dword ptr [rsi*4 + 0x1000]", em_load32(&e, RCX, &m));
	m = mem(R12, -1, 1, -4);
	m.gs = m.addr32 = true;
	EXPECT("mov dword ptr gs:[r12d - 4], eax", em_store32(&e, &m, RAX));
}

static void arithmetic(void **state)
{
	struct host_mem m = mem(R15, -1, 1, 0x40);

	(void)state;
	EXPECT("not r9d", em_not32(&e, R9));
	EXPECT("mov qword ptr [r15 + 0x40], r13", em_store64(&e, &m, R13));
	EXPECT("and r9d, 0x200", em_alu_ri32(&e, ALU_AND, R9, 0x200));
	EXPECT("cmp r8d, 5", em_alu_ri32(&e, ALU_CMP, R8, 5));
	EXPECT("cmp r9d, r10d", em_alu_rr32(&e, ALU_CMP, R9, R10));
	EXPECT("or r10d, dword ptr [r15 + 0x40]", em_alu_rm32(&e, ALU_OR, R10, &m));
	EXPECT("cmp dword ptr [r15 + 0x40], 0", em_cmp_mi8(&e, &m, 0));
	EXPECT("shr r9d, 0xb", em_shr_ri32(&e, R9, 11));
	EXPECT("rorx r10d, eax, 8", em_rorx32(&e, R10, RAX, 8));
	EXPECT("rorx rdx, rdx, 0x20", em_rorx64(&e, RDX, RDX, 32));
	EXPECT("rorx r11d, r11d, 0x15", em_rorx32(&e, R11, R11, 21));
	EXPECT("shrx r9d, r8d, r10d", em_shrx32(&e, R9, R8, R10));
	EXPECT("shrx r9d, esi, r10d", em_shrx32(&e, R9, RSI, R10));
}

static void branches(void **state)
{
	struct host_mem m = mem(R14, R9, 8, 0);

	(void)state;
	EXPECT("jmp qword ptr [r14 + r9*8]", em_jmp_m(&e, &m));
	EXPECT("call qword ptr [r14 + r9*8]", em_call_m(&e, &m));
	EXPECT("jmp 0x20", em_fix32(&e, em_jmp32(&e), 0x20));
	EXPECT("call 0x20", em_fix32(&e, em_call32(&e), 0x20));
	EXPECT("jne 0x20", em_fix32(&e, em_jcc32(&e, 5), 0x20));
	EXPECT("jrcxz 3; nop", {
		uint32_t at = em_jrcxz8(&e);
		em8(&e, 0x90);
		em_fix8(&e, at);
	});
	EXPECT("je 3; nop", {
		uint32_t at = em_jcc8(&e, 4);
		em8(&e, 0x90);
		em_fix8(&e, at);
	});
}

/* ------------------------------------------------------------------ rules: guest bytes -> host code of the
 * body */

static struct cache cache;

/* The body of the block for these bytes, up to its first exit, as text. */
static const char *body(const char *bytes, size_t len, uint32_t mode)
{
	static uint8_t page[4096];
	struct translate_request rq = {
		.gpa = 0x1000, .eip = 0x1000, .mode = mode, .code = page, .avail = 4096};

	memset(page, 0xf4, sizeof page); /* hlt ends the block */
	memcpy(page, bytes, len);
	cache_flush(&cache);
	struct block *b = translate_block(&cache, &rq);
	uint32_t end = b->ninsn > 1 ? b->host + b->side[b->ninsn - 1].host : b->host_end;
	return disassemble(cache.rx + b->host, end - b->host);
}
#define RULE(bytes, mode, expected) assert_string_equal(body(bytes, sizeof bytes - 1, mode), expected)

static void rules_ident(void **state)
{
	(void)state;
	RULE("\x03\x43\x04", 0, "add eax, dword ptr gs:[rbx + 4]");
	RULE("\x03\x43\x80", 0, "add eax, dword ptr gs:[rbx - 0x80]");
	RULE("\x03\x83\x80\x00\x00\x00", 0, "add eax, dword ptr gs:[ebx + 0x80]");
	RULE("\x03\x04\x0b", 0, "add eax, dword ptr gs:[ebx + ecx]");
	RULE("\x89\x4c\x24\x08", 0, "mov dword ptr gs:[r12 + 8], ecx");
	RULE("\x89\xe0", 0, "mov eax, r12d");
	RULE("\x89\xc4", 0, "mov r12d, eax");
	RULE("\x83\xec\x10", 0, "sub r12d, 0x10");
	RULE("\xa1\x00\x00\x00\x80", 0, "mov eax, dword ptr gs:[0x80000000]");
	RULE("\x8b\x0d\x00\x00\x00\x80", 0, "mov ecx, dword ptr gs:[0x80000000]");
	RULE("\x66\x8b\x06", 0, "mov ax, word ptr gs:[rsi]");
	RULE("\xf0\x0f\xc1\x01", 0, "lock xadd dword ptr gs:[rcx], eax");
	RULE("\x88\xe1", 0, "mov cl, ah");
	RULE("\x8a\x65\x00", 0, "mov ah, byte ptr gs:[rbp]");
	RULE("\x40", 0, "inc eax");
	RULE("\x4c", 0, "dec r12d");
	RULE("\x66\x43", 0, "inc bx");
	RULE("\x0f\xcc", 0, "bswap r12d");
	RULE("\x94", 0, "xchg eax, r12d");
	RULE("\x8d\x44\x24\x04", 0, "lea eax, [r12 + 4]");
	RULE("\x82\xc0\x05", 0, "add al, 5");
	RULE("\x0f\x28\x04\x24", 0, "movaps xmm0, xmmword ptr gs:[r12]");
	RULE("\x66\x0f\x7e\xc4", 0, "movd r12d, xmm0");
	RULE("\x66\x0f\x6e\xe0", 0, "movd xmm4, eax");
	RULE("\xdd\x44\x24\x04", 0, "fld qword ptr gs:[r12 + 4]");
	RULE("\xf3\x0f\xbc\xc1", 0, "bsf eax, ecx");
	RULE("\x04\x05", 0, "add al, 5");
	RULE("\x24\x05", 0, "and al, 5");
	RULE("\xb4\x05", 0, "mov ah, 5");
	RULE("\xbc\x05\x00\x00\x00", 0, "mov r12d, 5");
	RULE("\xd3\xe4", 0, "shl r12d, cl");
}

static void rules_stack(void **state)
{
	(void)state;
	RULE("\x53", 0, "mov dword ptr gs:[r12 - 4], ebx; lea r12d, [r12 - 4]");
	RULE("\x54", 0, "mov dword ptr gs:[r12 - 4], r12d; lea r12d, [r12 - 4]");
	RULE("\x5b", 0, "mov ebx, dword ptr gs:[r12]; lea r12d, [r12 + 4]");
	RULE("\x5c", 0, "mov r12d, dword ptr gs:[r12]");
	RULE("\x6a\xff", 0, "mov dword ptr gs:[r12 - 4], 0xffffffff; lea r12d, [r12 - 4]");
	RULE("\x50\x51\x6a\x05", 0,
	     "mov dword ptr gs:[r12 - 4], eax; mov dword ptr gs:[r12 - 8], ecx; "
	     "mov dword ptr gs:[r12 - 0xc], 5; lea r12d, [r12 - 0xc]");
	RULE("\x58\x59", 0,
	     "mov eax, dword ptr gs:[r12]; mov ecx, dword ptr gs:[r12 + 4]; lea r12d, [r12 + 8]");
	RULE("\xc9", 0, "mov r8d, dword ptr gs:[rbp]; lea r12d, [rbp + 4]; mov ebp, r8d");
	RULE("\xff\x34\x24", 0,
	     "mov r8d, dword ptr gs:[r12]; mov dword ptr gs:[r12 - 4], r8d; lea r12d, [r12 - 4]");
	RULE("\x8f\x04\x24", 0,
	     "mov r11d, dword ptr gs:[r12]; mov dword ptr gs:[r12 + 4], r11d; lea r12d, [r12 + 4]");
}

static void rules_string(void **state)
{
	(void)state;
	RULE("\xf3\xa5", MODE_USER,
	     "lea rsi, [rsi + r13]; lea rdi, [rdi + r13]; rep movsd dword ptr [rdi], dword ptr [rsi]; "
	     "mov esi, esi; mov edi, edi");
	RULE("\xaa", MODE_USER, "lea rdi, [rdi + r13]; stosb byte ptr [rdi], al; mov edi, edi");
}

/* A site that was seen to touch user pages goes through r13. */
static void rules_sites(void **state)
{
	(void)state;
	site_add(0x1000, false, SITE_USER);
	RULE("\x8b\x01", 0, "lea r8d, [rcx]; mov eax, dword ptr [r8 + r13]");
	RULE("\x8b\x01", MODE_USER, "mov eax, dword ptr [rcx + r13]");
	RULE("\x8b\x04\x24", MODE_USER, "mov eax, dword ptr gs:[r12]");
	RULE("\x8a\x21", MODE_USER, "mov ah, byte ptr gs:[rcx]");
	site_forget(0x1000, 1);
	RULE("\x8b\x01", 0, "mov eax, dword ptr gs:[rcx]");
}

/* What a site that probes begins with: the address, the TLB, the jump to the slow path. `at` is behind that
 * jump. */
static void expect_probe(const char *bytes, size_t len, const char *ea, unsigned last, size_t tags,
			 const char *then)
{
	char expected[600], page[40] = "", *slow;
	const char *b = body(bytes, len, MODE_USER);
	const unsigned add = offsetof(struct vcpu, hot.probe_tlb.add);

	slow = strstr(b, "jmp 0x");
	assert_non_null(slow);
	if (last)
		snprintf(page, sizeof page, last < 10 ? "lea r9d, [r8 + %u]; " : "lea r9d, [r8 + %#x]; ",
			 last);
	snprintf(expected, sizeof expected,
		 "lea r8d, [%s]; mov r11, rcx; mov ecx, 0xc; %s%smov ecx, dword ptr [r15 + r10*4 + %#zx]; "
		 "mov r10, qword ptr [r15 + r10*8 + %#x]; lea ecx, [rcx + r9 + 1]; jrcxz ",
		 ea, page,
		 last ? "shrx r10d, r8d, ecx; shrx r9d, r9d, ecx; movzx r10d, r10b; "
		      : "shrx r9d, r8d, ecx; movzx r10d, r9b; ",
		 tags, add);
	assert_memory_equal(b, expected, strlen(expected));
	slow = strchr(slow, ';');
	assert_string_equal(slow, then);
}

static void rules_probe(void **state)
{
	const size_t r = offsetof(struct vcpu, hot.probe_tlb.read),
		     w = offsetof(struct vcpu, hot.probe_tlb.write);

	(void)state;
	if (!translate_host.bmi2)
		skip();
	site_add(0x1000, true, SITE_PROBE);
	expect_probe("\x8b\x41\x08", 3, "rcx + 8", 3, r, "; mov rcx, r11; mov eax, dword ptr [r10 + r8]");
	expect_probe("\x8a\x01", 2, "rcx", 0, r, "; mov rcx, r11; mov al, byte ptr [r10 + r8]");
	expect_probe("\x5b", 1, "r12", 3, r,
		     "; mov rcx, r11; mov ebx, dword ptr [r10 + r8]; lea r12d, [r12 + 4]");
	/* what writes asks for writing, whatever has missed */
	expect_probe("\x66\x01\x01", 3, "rcx", 1, w, "; mov rcx, r11; add word ptr [r10 + r8], ax");
	expect_probe("\x0f\xc7\x09", 3, "rcx", 7, w, "; mov rcx, r11; cmpxchg8b qword ptr [r10 + r8]");
	expect_probe("\x0f\x11\x01", 3, "rcx", 15, w, "; mov rcx, r11; movups xmmword ptr [r10 + r8], xmm0");
	/* neither a plain size nor room for r8 */
	assert_null(strstr(body("\x0f\xa3\x01", 3, MODE_USER), "[r10 + r8]")); /* bt [ecx], eax */
	assert_null(strstr(body("\x8a\x21", 2, MODE_USER), "r8]"));	       /* mov ah, [ecx] */
	assert_null(strstr(body("\xa4", 1, MODE_USER), "[r10 + r8]"));
	site_forget(0x1000, 1);
	site_add(0x1000, true, SITE_PROBE_W);
	expect_probe("\x53", 1, "r12 - 4", 3, w,
		     "; mov rcx, r11; mov dword ptr [r10 + r8], ebx; lea r12d, [r12 - 4]");
	site_forget_all();
}

static int setup(void **state)
{
	char err[100];

	(void)state;
	cs_open(CS_ARCH_X86, CS_MODE_64, &handle);
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	translate_init();
	return cache_init(&cache, 1 << 20, err, sizeof err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moves),	cmocka_unit_test(addressing),  cmocka_unit_test(arithmetic),
		cmocka_unit_test(branches),	cmocka_unit_test(rules_ident), cmocka_unit_test(rules_stack),
		cmocka_unit_test(rules_string), cmocka_unit_test(rules_sites), cmocka_unit_test(rules_probe),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
