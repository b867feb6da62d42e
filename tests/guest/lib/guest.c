#include <stdarg.h>

#include "guest.h"

#define COM1	     0x3f8
#define COM1_LSR     (COM1 + 5)
#define LSR_THRE     0x20
#define DEBUG_EXIT   0xf4
#define MULTIBOOT_OK 0x2badb002u

#ifndef TEST_NAME
#define TEST_NAME "?"
#endif

_Static_assert(offsetof(struct state, eip) == STATE_EIP, "layout.h");
_Static_assert(offsetof(struct state, v86_gs) == STATE_V86_GS, "layout.h");
_Static_assert(sizeof(struct state) == STATE_SIZE, "layout.h");
_Static_assert(offsetof(struct tss, io_map) == 102, "SDM vol. 3A figure 8-2");

extern const char vector_stubs[256][16];

uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(8))), idt[256] __attribute__((aligned(8)));
struct table_register gdtr = {sizeof(gdt) - 1, (uint32_t)gdt}, idtr = {sizeof(idt) - 1, (uint32_t)idt};
struct tss tss __attribute__((aligned(128)));
uint8_t snippet_stack[16384] __attribute__((aligned(4096)));
uint8_t user_stack[16384] __attribute__((aligned(4096)));
uint8_t ring0_stack[16384] __attribute__((aligned(4096)));
bool on_tcg;
uint32_t multiboot_info;

static unsigned cases, failures;
static const char *sdm_section;
static bool cpu_dependent;

void *memset(void *destination, int value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)destination)[i] = value;
	return destination;
}

void *memcpy(void *destination, const void *source, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)destination)[i] = ((const uint8_t *)source)[i];
	return destination;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *p = a, *q = b;

	for (; size; p++, q++, size--)
		if (*p != *q)
			return *p - *q;
	return 0;
}

static void put(char c)
{
	if (c == '\n')
		put('\r');
	while (!(inb(COM1_LSR) & LSR_THRE))
		;
	outb(COM1, c);
}

static void put_number(uint32_t value, unsigned base, unsigned width, char pad)
{
	char digits[12];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	for (; width > n; width--)
		put(pad);
	while (n)
		put(digits[--n]);
}

/* %s %c %d %u %x with width and 0 */
void print(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	for (; *format; format++) {
		unsigned width = 0;
		char pad = ' ';

		if (*format != '%') {
			put(*format);
			continue;
		}
		if (*++format == '0')
			pad = '0';
		for (; *format >= '0' && *format <= '9'; format++)
			width = width * 10 + (*format - '0');
		switch (*format) {
		case 's':
			for (const char *text = va_arg(arguments, const char *); *text; text++)
				put(*text);
			break;
		case 'c':
			put(va_arg(arguments, int));
			break;
		case 'd': {
			int value = va_arg(arguments, int);

			if (value < 0)
				put('-');
			put_number(value < 0 ? -(uint32_t)value : (uint32_t)value, 10, width, pad);
			break;
		}
		case 'u':
			put_number(va_arg(arguments, uint32_t), 10, width, pad);
			break;
		case 'x':
			put_number(va_arg(arguments, uint32_t), 16, width, pad);
			break;
		default:
			put(*format);
		}
	}
	va_end(arguments);
}

void sdm(const char *section)
{
	sdm_section = section;
}

void cpu_line(void)
{
	cpu_dependent = true;
}

static void line_start(const char *label)
{
	cases++;
	print("%s%s: ", sdm_section ? "sdm: " : cpu_dependent ? "cpu: " : "", label);
}

/* True if good. What QEMU is known to get wrong does not count against it. */
static bool line_end(bool good)
{
	if (sdm_section)
		print(" [SDM %s]", sdm_section);
	if (!good && sdm_section && on_tcg)
		print(" known deviation of QEMU\n");
	else if (!good) {
		failures++;
		print(" FAIL\n");
	} else
		print("\n");
	sdm_section = NULL;
	cpu_dependent = false;
	return good;
}

void finish(void)
{
	if (!cases)
		print("no cases\n");
	if (failures || !cases)
		print("FAIL %s: %u of %u\n", TEST_NAME, failures, cases);
	else
		print("PASS %s\n", TEST_NAME);
	outb(DEBUG_EXIT, failures || !cases);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static const char *vector_name(unsigned vector)
{
	static const char *const names[] = {
		"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9",
		"#TS", "#NP", "#SS", "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM",
	};

	return vector < sizeof(names) / sizeof(names[0]) ? names[vector] : NULL;
}

static void print_vector(unsigned vector, uint32_t error)
{
	if (vector == DONE_VECTOR)
		print("done");
	else if (vector_name(vector))
		print("%s", vector_name(vector));
	else
		print("vector %02x", vector);
	if (error != NO_ERROR)
		print("(%04x)", error);
}

void unexpected_exception(void);

/* entry.S comes here when no snippet was running: the test itself is broken, or the machine badly. */
void unexpected_exception(void)
{
	print("unexpected ");
	print_vector(out.vector, out.error);
	print(" at %04x:%08x eflags %08x cr2 %08x esp %08x\n", out.cs & 0xffff, out.eip, out.eflags, out.cr2,
	      out.esp);
	failures++;
	cases++;
	finish();
}

void reset(void)
{
	memset(&in, 0, sizeof(in));
	in.cs = KERNEL_CODE;
	in.ds = in.es = in.fs = in.gs = in.ss = KERNEL_DATA;
	in.esp = SNIPPET_STACK;
	in.eflags = 2;
}

void user_mode(void)
{
	in.cs = USER_CODE;
	in.ds = in.es = in.fs = in.gs = in.ss = USER_DATA;
	in.esp = USER_STACK;
}

void run(const struct snippet *code)
{
	in.eip = (uint32_t)code->start;
	memset(&out, 0, sizeof(out));
	run_snippet();
	out.gs &= 0xffff;
	out.fs &= 0xffff;
	out.es &= 0xffff;
	out.ds &= 0xffff;
	out.cs &= 0xffff;
	out.ss &= 0xffff;
	reset();
}

static bool verdict(const char *label, const struct snippet *code, unsigned vector, uint32_t error,
		    uint32_t eip)
{
	uint32_t mask = EFLAGS_TF | EFLAGS_IF | EFLAGS_DF | EFLAGS_IOPL | EFLAGS_NT | EFLAGS_VM | EFLAGS_AC;
	bool good;

	run(code);
	good = out.vector == vector && out.error == error && out.eip == eip;
	line_start(label);
	print_vector(out.vector, out.error);
	if (out.eip == (uint32_t)code->at)
		print(" at");
	else if (out.eip == (uint32_t)code->after)
		print(" after");
	else if (out.vector != DONE_VECTOR || !good)
		print(" at+%d", (int)(out.eip - (uint32_t)code->at));
	print(" cs %02x eflags %x", out.cs, out.eflags & mask);
	if (out.vector == X_PF)
		print(" cr2 %08x", out.cr2);
	if (!good) {
		print(", want ");
		print_vector(vector, error);
		print(" at+%d", (int)(eip - (uint32_t)code->at));
	}
	return line_end(good);
}

bool expect_fault(const char *label, const struct snippet *code, unsigned vector, uint32_t error)
{
	return verdict(label, code, vector, error, (uint32_t)code->at);
}

bool expect_trap(const char *label, const struct snippet *code, unsigned vector, uint32_t error)
{
	return verdict(label, code, vector, error, (uint32_t)code->after);
}

bool expect_vector(const char *label, const struct snippet *code, unsigned vector, uint32_t error,
		   const void *eip)
{
	return verdict(label, code, vector, error, (uint32_t)eip);
}

/* The int 0x30 is recognized by its vector; where it stands is the snippet's business. */
bool expect_done(const char *label, const struct snippet *code)
{
	run(code);
	line_start(label);
	print_vector(out.vector, out.error);
	if (out.vector != DONE_VECTOR) {
		print(" at+%d cr2 %08x, want done", (int)(out.eip - (uint32_t)code->at), out.cr2);
		return line_end(false);
	}
	return line_end(true);
}

bool check(const char *label, uint32_t got, uint32_t want)
{
	line_start(label);
	print("%x", got);
	if (got != want)
		print(", want %x", want);
	return line_end(got == want);
}

/* For measured values: the value itself is printed only where it is out of range. */
bool check_range(const char *label, uint32_t got, uint32_t low, uint32_t high)
{
	bool good = got >= low && got <= high;

	line_start(label);
	if (good)
		print("within %u..%u", low, high);
	else
		print("%u, want %u..%u", got, low, high);
	return line_end(good);
}

uint64_t segment(uint32_t base, uint32_t limit, uint32_t attributes)
{
	uint32_t low = base << 16 | (limit & 0xffff);
	uint32_t high = (base & 0xff000000) | (limit & 0xf0000) | attributes | (base >> 16 & 0xff);

	return (uint64_t)high << 32 | low;
}

uint64_t gate(uint16_t selector, uint32_t offset, uint32_t attributes)
{
	uint32_t low = (uint32_t)selector << 16 | (offset & 0xffff);

	return (uint64_t)((offset & 0xffff0000) | attributes) << 32 | low;
}

void set_segment(unsigned selector, uint32_t base, uint32_t limit, uint32_t attributes)
{
	gdt[selector / 8] = segment(base, limit, attributes);
}

void set_gate(unsigned vector, const void *handler, uint32_t attributes)
{
	idt[vector] = gate(KERNEL_CODE, (uint32_t)handler, attributes);
}

void set_default_gate(unsigned vector, unsigned dpl)
{
	set_gate(vector, vector_stubs[vector], GATE_INT32 | SEG_DPL(dpl));
}

struct cpuid cpu_id(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "0"(leaf), "2"(subleaf));
	return r;
}

bool cpu_has(uint32_t edx_bit)
{
	return cpu_id(1, 0).edx & edx_bit;
}

bool cpu_has_nx(void)
{
	return cpu_id(0x80000000, 0).eax >= 0x80000001 && cpu_id(0x80000001, 0).edx & 1u << 20;
}

static void pic_init(uint16_t port, uint8_t vector, uint8_t cascade)
{
	outb(port, 0x11);
	outb(port + 1, vector);
	outb(port + 1, cascade);
	outb(port + 1, 0x01);
	outb(port + 1, 0xff);
}

void guest_start(uint32_t magic, uint32_t info);

void guest_start(uint32_t magic, uint32_t info)
{
	struct cpuid r;

	multiboot_info = info;
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x83);
	outb(COM1, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x03);
	outb(COM1 + 2, 0x07);
	pic_init(0x20, 0x20, 4);
	pic_init(0xa0, 0x28, 2);

	set_segment(KERNEL_CODE, 0, 0xfffff, SEG_CODE32 | SEG_G);
	set_segment(KERNEL_DATA, 0, 0xfffff, SEG_DATA32 | SEG_G);
	set_segment(USER_CODE, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(3));
	set_segment(USER_DATA, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(3));
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) - 1, SEG_TSS32);
	tss.ss0 = KERNEL_DATA;
	tss.esp0 = RING0_STACK;
	tss.io_map = offsetof(struct tss, io_bitmap);
	for (unsigned i = 0; i < 256; i++)
		set_default_gate(i, 0);
	set_default_gate(X_BP, 3);
	set_default_gate(X_OF, 3);
	set_default_gate(DONE_VECTOR, 3);
	load_tables(&gdtr, &idtr, MAIN_TSS);
	__asm__ volatile("lldt %w0" : : "r"(0));

	if (cpu_id(1, 0).ecx >> 31) {
		r = cpu_id(0x40000000, 0);
		on_tcg = r.ebx == 0x54474354 && r.ecx == 0x43544743 && r.edx == 0x47435447; /* TCGTCGTCGTCG */
	}
	reset();
	print("test %s\n", TEST_NAME);
	if (magic != MULTIBOOT_OK)
		check("multiboot magic", magic, MULTIBOOT_OK);
	test();
	finish();
}
