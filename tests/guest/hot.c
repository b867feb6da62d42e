/*
 * Loops that run for many of the timer's ticks, long enough for a translator to make better code of them
 * while they run: calls through a table to functions on the same page and on another, a loop within a loop,
 * functions that call on, and a function that is written to now and then. How often they go round is the
 * machine's business; what they add up to follows from that.
 */
#include "guest.h"

#define PIC1	  0x20
#define TICK	  0x20
#define PIT_COUNT 1193u /* a millisecond */
#define TICKS	  "40"
#define PATCHED	  0x1000u /* rounds between two writes */

/* Functions 0 to 3 stand on a page with the loops, 4 to 7 on another. Each takes eax and adds to ebx. */
__asm__(".text\n"
	"hot_tick: pushl %eax; incl hot_ticks; movb $0x20, %al; outb %al, $0x20; popl %eax; iretl\n"
	".pushsection .snippets, \"awx\"\n.balign 4096\n"
	"hot_0: addl $1, %ebx; ret\n"
	".balign 64\nhot_1: leal (%ebx,%eax,2), %ebx; ret\n"
	".balign 64\nhot_2: call hot_0; addl $5, %ebx; ret\n"
	".balign 64\nhot_3: addl $3, %ebx\nhot_patched: addl $0x11111111, %ebx; ret\n"
	".balign 4096\n"
	"hot_4: xorl $0x5a, %ebx; ret\n"
	".balign 64\nhot_5: subl %eax, %ebx; jmp hot_7\n"
	".balign 64\nhot_6: pushl %ecx; movl $3, %ecx; 1: addl %ecx, %ebx; loop 1b; popl %ecx; ret\n"
	".balign 64\nhot_7: notl %ebx; ret\n"
	".popsection\n"
	".bss\n.balign 4\nhot_ticks: .skip 4\n"
	".data\n.balign 4\nhot_table: .long hot_0, hot_1, hot_2, hot_3, hot_4, hot_5, hot_6, hot_7\n.text\n");
LABEL(hot_tick);
LABEL(hot_patched);
extern volatile uint32_t hot_ticks;

/* esi counts the rounds, the low bits of which choose the function. */
#define ROUND	"movl %esi, %eax; andl $7, %eax; call *hot_table(,%eax,4); incl %esi\n"
#define REWRITE "testl $0xfff, %esi; jnz 3f; movl %esi, hot_patched+2\n3:\n"
CODE(one_loop, "", "1:" ROUND "cmpl $" TICKS ", hot_ticks; jb 1b");
CODE(two_loops, "", "2: movl $40, %ecx\n1:" ROUND "decl %ecx; jnz 1b; cmpl $" TICKS ", hot_ticks; jb 2b");
CODE(direct_calls, "",
     "1: xorl %eax, %eax; call hot_4; call hot_0; call hot_6; call hot_2; incl %esi\n"
     "cmpl $" TICKS ", hot_ticks; jb 1b");
CODE(rewritten, "", "1:" ROUND REWRITE "cmpl $" TICKS ", hot_ticks; jb 1b");

static uint32_t rounds(uint32_t n, bool rewrite)
{
	uint32_t x = 0, patched = 0x11111111;

	for (uint32_t i = 0; i < n; i++) {
		const uint32_t which = i & 7;

		switch (which) {
		case 0:
			x += 1;
			break;
		case 1:
			x += 2 * which;
			break;
		case 2:
			x += 6;
			break;
		case 3:
			x += 3 + patched;
			break;
		case 4:
			x ^= 0x5a;
			break;
		case 5:
			x = ~(x - which);
			break;
		case 6:
			x += 6;
			break;
		default:
			x = ~x;
		}
		if (rewrite && !((i + 1) & (PATCHED - 1)))
			patched = i + 1;
	}
	return x;
}

static uint32_t direct(uint32_t n)
{
	uint32_t x = 0;

	while (n--)
		x = (x ^ 0x5a) + 1 + 6 + 6;
	return x;
}

static void go(const char *label, const struct snippet *code, bool user)
{
	if (user)
		user_mode();
	in.eflags |= EFLAGS_IF;
	in.esi = in.ebx = 0;
	hot_ticks = 0;
	MEM32(hot_patched + 2) = 0x11111111;
	expect_done(label, code);
	const uint32_t want = code == &direct_calls ? direct(out.esi) : rounds(out.esi, code == &rewritten);

	check("  sum", out.ebx == want, 1);
}

void test(void)
{
	static const struct {
		const char *label;
		const struct snippet *code;
	} loops[] = {
		{"a loop", &one_loop},
		{"a loop in a loop", &two_loops},
		{"direct calls", &direct_calls},
		{"a function that is written to", &rewritten},
	};

	set_gate(TICK, hot_tick, GATE_INT32);
	outb(0x43, 0x34);
	outb(0x40, PIT_COUNT & 0xff);
	outb(0x40, PIT_COUNT >> 8);
	outb(PIC1 + 1, 0xfe);
	for (unsigned user = 0; user < 2; user++)
		for (unsigned i = 0; i < sizeof(loops) / sizeof(loops[0]); i++) {
			print("cpl %u: ", user ? 3 : 0);
			go(loops[i].label, loops[i].code, user);
		}
	outb(PIC1 + 1, 0xff);
}
