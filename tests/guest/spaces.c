/*
 * Address spaces that come one after the other and have code in common, at CPL 3, as processes do: the same
 * frames at the same linear addresses and at others, other frames at the same addresses, code that changes
 * in between, instructions that go on on a page that is another one each time, or missing.
 */
#include "paging.h"

#define LINEAR	     0x02000000u /* beyond the identity map */
#define SPACES	     4u
#define FRAMES	     3u
#define ABSENT	     FRAMES
#define DIRECTORY(s) (PLAYGROUND + 0x10000 + (s)*0x1000)
#define TABLE(s)     (PLAYGROUND + 0x18000 + (s)*0x1000)
#define FIRST(f)     (PLAYGROUND + 0x20000 + (f)*0x1000)
#define SECOND(f)    (PLAYGROUND + 0x28000 + (f)*0x1000)
#define ROUNDS	     1500u

/* In the first page: functions that return a value; one that tells where it is; one that calls the first of
 * them; and, at its end, one that calls the second and then returns, or adds a number that is half on the
 * second page. */
#define VALUES	 6u
#define WHERE	 VALUES
#define CALLS	 (VALUES + 1)
#define LAST	 (VALUES + 2)
#define WHERE_AT 0x100u
#define CALLS_AT 0x200u
#define LAST_AT	 0xff8u
#define EDGE	 0xffdu

CODE(two_calls, "call *%ebx\n movl %eax, %edi", "call *%esi");

static uint32_t values[FRAMES][VALUES];
static bool across[FRAMES]; /* the last function goes on on the second page */
static struct {
	uint32_t linear, first, second;
} spaces[SPACES];

static void plant_call(uint32_t frame, uint32_t at, uint32_t to)
{
	MEM8(frame + at) = 0xe8;
	MEM32(frame + at + 1) = to - (at + 5);
}

/* mov eax, value; ret */
static void plant_value(uint32_t f, uint32_t n, uint32_t value)
{
	values[f][n] = value;
	MEM8(FIRST(f) + n * 16) = 0xb8;
	MEM32(FIRST(f) + n * 16 + 1) = value;
	MEM8(FIRST(f) + n * 16 + 5) = 0xc3;
}

/* add eax, imm32, or ret */
static void plant_edge(uint32_t f, bool goes_across)
{
	across[f] = goes_across;
	MEM8(FIRST(f) + EDGE) = goes_across ? 0x05 : 0xc3;
	MEM16(FIRST(f) + EDGE + 1) = 0x3000 + f;
}

static void plant(void)
{
	for (uint32_t f = 0; f < FRAMES; f++) {
		memset((void *)FIRST(f), 0, 4096);
		memset((void *)SECOND(f), 0, 4096);
		for (uint32_t n = 0; n < VALUES; n++)
			plant_value(f, n, f * 0x100 + n);
		/* call the next; pop eax; ret */
		plant_call(FIRST(f), WHERE_AT, WHERE_AT + 5);
		MEM16(FIRST(f) + WHERE_AT + 5) = 0xc358;
		/* inc eax; ret */
		plant_call(FIRST(f), CALLS_AT, 0);
		MEM16(FIRST(f) + CALLS_AT + 5) = 0xc340;
		plant_call(FIRST(f), LAST_AT, 16);
		plant_edge(f, true);
		MEM16(SECOND(f)) = f;
		MEM8(SECOND(f) + 2) = 0xc3;
	}
}

static volatile uint32_t *entry(uint32_t s)
{
	return &((volatile uint32_t *)TABLE(s))[spaces[s].linear >> 12 & 1023];
}

static void set_entries(uint32_t s)
{
	entry(s)[0] = FIRST(spaces[s].first) | PTE_ALL;
	entry(s)[1] = spaces[s].second == ABSENT ? 0 : SECOND(spaces[s].second) | PTE_ALL;
}

/* A directory that belonged to another address space, if the number had one. */
static void make_space(uint32_t s, uint32_t linear, uint32_t first, uint32_t second)
{
	memcpy((void *)DIRECTORY(s), page_directory, 4096);
	memset((void *)TABLE(s), 0, 4096);
	spaces[s].linear = linear;
	spaces[s].first = first;
	spaces[s].second = second;
	set_entries(s);
	MEM32(DIRECTORY(s) + (linear >> 22) * 4) = TABLE(s) | PTE_ALL;
}

static uint32_t address(uint32_t s, uint32_t function)
{
	return spaces[s].linear + (function < VALUES   ? function * 16
				   : function == WHERE ? WHERE_AT
				   : function == CALLS ? CALLS_AT
						       : LAST_AT);
}

static uint32_t expected(uint32_t s, uint32_t function)
{
	const uint32_t f = spaces[s].first, *v = values[f];

	if (function < VALUES)
		return v[function];
	if (function == WHERE)
		return spaces[s].linear + WHERE_AT + 5;
	if (function == CALLS)
		return v[0] + 1;
	return across[f] ? v[1] + (0x3000 + f + (spaces[s].second << 16)) : v[1];
}

static void start(uint32_t s, uint32_t a, uint32_t b)
{
	user_mode();
	in.ebx = address(s, a);
	in.esi = address(s, b);
	run(&two_calls);
}

/* In the space that is loaded. If the second page is needed and missing, that is a fault, and it gets one. */
static bool calls_well(uint32_t s, uint32_t a, uint32_t b)
{
	if (a == LAST)
		a = WHERE;
	start(s, a, b);
	if (b == LAST && across[spaces[s].first] && spaces[s].second == ABSENT) {
		if (out.vector != X_PF || out.error != PF_U || out.eip != spaces[s].linear + EDGE ||
		    out.cr2 != spaces[s].linear + 0x1000)
			return false;
		spaces[s].second = any(FRAMES);
		set_entries(s);
		start(s, a, b);
	}
	return out.vector == DONE_VECTOR && out.edi == expected(s, a) && out.eax == expected(s, b);
}

/* What follows a call goes on on the next page; then is one byte; then goes on again; then the page is
 * missing in another address space. */
static void calls_at_the_edge(void)
{
	uint32_t wrong = 0;

	for (uint32_t f = 0; f < FRAMES; f++) {
		make_space(0, LINEAR, f, ABSENT);
		set_cr3(DIRECTORY(0));
		plant_edge(f, true);
		start(0, WHERE, LAST);
		wrong += out.vector != X_PF || out.eip != LINEAR + EDGE;
		plant_edge(f, false);
		wrong += !calls_well(0, WHERE, LAST);
		wrong += !calls_well(0, WHERE, LAST);
		spaces[0].second = 0;
		set_entries(0);
		plant_edge(f, true);
		wrong += !calls_well(0, WHERE, LAST);
		wrong += !calls_well(0, WHERE, LAST);
		for (uint32_t s = 1; s < SPACES; s++) {
			make_space(s, LINEAR, f, s & 1 ? ABSENT : 1);
			set_cr3(DIRECTORY(s));
			wrong += !calls_well(s, WHERE, LAST);
			wrong += !calls_well(s, WHERE, LAST);
		}
	}
	check("calls before an instruction that goes on on a page that comes and goes", wrong, 0);
}

static void one_round(uint32_t round, uint32_t *wrong)
{
	const uint32_t s = round < SPACES ? round : any(SPACES), f = any(FRAMES);

	if (round < SPACES || any(2))
		make_space(s, LINEAR + any(2) * 0x2000, f, any(FRAMES + 1));
	if (any(4) == 0)
		plant_value(f, any(VALUES), round << 8);
	if (any(8) == 0)
		plant_edge(f, any(2));
	set_cr3(DIRECTORY(s));
	for (uint32_t n = any(4); n--;) {
		*wrong += !calls_well(s, any(LAST + 1), any(LAST + 1));
		if (any(4))
			continue;
		spaces[s].first = any(FRAMES);
		set_entries(s);
		invlpg(spaces[s].linear);
	}
}

void test(void)
{
	uint32_t wrong = 0;

	paging_on();
	plant();
	calls_at_the_edge();
	for (uint32_t round = 0; round < ROUNDS; round++)
		one_round(round, &wrong);
	check("address spaces with code in common", wrong, 0);
	set_cr3((uint32_t)page_directory);
	paging_off();
}
