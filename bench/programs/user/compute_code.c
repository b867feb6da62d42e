/* Programs whose cost is in how they go from one place to another: calls, branches, dispatch, parsing. */
#include <ctype.h>

#include "bench.h"

#define SEED 0x9e3779b97f4a7c15u

/* Straight integer arithmetic: shifts, multiplications, a division now and then. */
static uint64_t integer(unsigned n)
{
	uint32_t a = 1, b = 2, c = 3, d = 4;

	for (; n; n--)
		for (uint32_t i = 0; i < 1000; i++) {
			a = a * 1664525 + 1013904223;
			b ^= b << 13 ^ a >> 7;
			c = (c + b) * 5 + (c >> 3);
			d += (a & 0xffff) / ((b & 255) + 1) + (c ^ d >> 5);
		}
	return mix(mix(mix(a, b), c), d);
}

static __attribute__((noinline, noclone)) unsigned fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline, noclone)) int tak(int x, int y, int z)
{
	return y >= x ? z : tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

static uint64_t recursion(unsigned n)
{
	uint64_t sum = 0;

	for (; n; n--)
		sum = mix(mix(sum, fib(20)), (uint64_t)tak(12, 8, 4));
	return sum;
}

/* Calls and returns and nothing else. */
static __attribute__((noinline, noclone)) unsigned leaf(unsigned x)
{
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

static __attribute__((noinline, noclone)) unsigned inner(unsigned x)
{
	x = leaf(x);
	__asm__ volatile("" : "+r"(x));
	return x;
}

static uint64_t call_ret(unsigned n)
{
	unsigned x = 0;

	for (; n; n--)
		for (unsigned i = 0; i < 1000; i++) {
			x = inner(x);
			x = leaf(x);
		}
	return x;
}

static unsigned add_1(unsigned x)
{
	return x + 1;
}
static unsigned add_3(unsigned x)
{
	return x + 3;
}
static unsigned twice(unsigned x)
{
	return x * 2;
}
static unsigned turn(unsigned x)
{
	return x << 7 | x >> 25;
}

static uint64_t indirect(unsigned n)
{
	static unsigned (*volatile const calls[8])(unsigned) = {add_1, twice, add_3, turn,
								add_1, turn,  add_3, twice};
	unsigned x = 1;

	for (; n; n--)
		for (unsigned i = 0; i < 1000; i++)
			x = calls[i & 7](x);
	return x;
}

/* Objects of eight classes in an order that has no pattern, each with a method or two. */
struct object;
struct class
{
	void (*step)(struct object *o, unsigned by);
	unsigned (*value)(const struct object *o);
};
struct object {
	const struct class *class;
	unsigned a, b;
};

static void step_add(struct object *o, unsigned by)
{
	o->a += by;
}
static void step_mix(struct object *o, unsigned by)
{
	o->a = (o->a ^ by) * 0x01000193;
}
static void step_swap(struct object *o, unsigned by)
{
	unsigned t = o->a;

	o->a = o->b + by;
	o->b = t;
}
static unsigned value_sum(const struct object *o)
{
	return o->a + o->b;
}
static unsigned value_a(const struct object *o)
{
	return o->a;
}
static unsigned value_big(const struct object *o)
{
	return o->a > o->b ? o->a : o->b;
}

#define OBJECTS 2048
static struct object objects[OBJECTS];

static void virtual_prepare(void)
{
	static const struct class classes[8] = {
		{step_add, value_sum}, {step_mix, value_sum}, {step_swap, value_sum}, {step_add, value_a},
		{step_mix, value_a},   {step_swap, value_a},  {step_add, value_big},  {step_mix, value_big},
	};
	uint64_t seed = SEED;

	for (unsigned i = 0; i < OBJECTS; i++)
		objects[i].class = &classes[random_next(&seed) & 7];
}

static uint64_t virtual_calls(unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < OBJECTS; i++) {
		objects[i].a = i;
		objects[i].b = ~i;
	}
	for (; n; n--)
		for (unsigned i = 0; i < OBJECTS; i++) {
			struct object *o = &objects[i];

			o->class->step(o, n);
			sum += o->class->value(o);
		}
	return sum;
}

/* Branches that depend on data: Collatz sequences, and a walk through random bits. */
static uint64_t branches(unsigned n)
{
	uint64_t sum = 0, seed = SEED;

	for (; n; n--) {
		for (uint32_t i = 1; i < 100; i++) {
			uint32_t steps = 0;

			for (uint32_t x = i; x != 1; steps++)
				x = x & 1 ? 3 * x + 1 : x >> 1;
			sum = mix(sum, steps);
		}
		int at = 0;

		for (unsigned i = 0; i < 500; i++) {
			uint32_t r = random_next(&seed);

			if (r & 1)
				at += r & 2 ? 1 : 3;
			else if (r & 4)
				at -= 2;
			else if (at > 10)
				at /= 2;
			else
				at ^= 5;
		}
		sum += (unsigned)at;
	}
	return sum;
}

/* The C library's qsort, which calls back for every comparison. */
#define SORTED 4096
static uint32_t sort_input[SORTED], sort_work[SORTED];

static void sort_prepare(void)
{
	uint64_t seed = SEED;

	for (unsigned i = 0; i < SORTED; i++)
		sort_input[i] = random_next(&seed);
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t sort_callback(unsigned n)
{
	uint64_t sum = 0;

	for (; n; n--) {
		memcpy(sort_work, sort_input, sizeof(sort_work));
		qsort(sort_work, SORTED, sizeof(sort_work[0]), compare);
		for (unsigned i = 0; i < SORTED; i += 64)
			sum = mix(sum, sort_work[i]);
	}
	return sum;
}

/* A stack machine; the program counts primes below its argument by trial division. */
enum op { PUSH, LOAD, STORE, ADD, MUL, MOD, LESS, JUMP, JUMP_ZERO, END };

static uint32_t interpret(const int *program, uint32_t argument)
{
	const int *code = program;
	uint32_t stack[16], *top = stack, variables[4] = {argument};

	for (;;)
		switch ((enum op) * code++) {
		case PUSH:
			*++top = (uint32_t)*code++;
			break;
		case LOAD:
			*++top = variables[*code++];
			break;
		case STORE:
			variables[*code++] = *top--;
			break;
		case ADD:
			top--;
			*top += top[1];
			break;
		case MUL:
			top--;
			*top *= top[1];
			break;
		case MOD:
			top--;
			*top %= top[1];
			break;
		case LESS:
			top--;
			*top = *top < top[1];
			break;
		case JUMP:
			code = program + *code;
			break;
		case JUMP_ZERO:
			code = *top-- ? code + 1 : program + *code;
			break;
		case END:
			return *top;
		}
}

static uint64_t bytecode(unsigned n)
{
	/* variables: 0 limit, 1 candidate, 2 divisor, 3 count; jumps to places counted from the start */
	/* clang-format off */
	static const int program[] = {
		PUSH, 0, STORE, 3, PUSH, 2, STORE, 1,
		/* 8: while candidate < limit */
		LOAD, 1, LOAD, 0, LESS, JUMP_ZERO, 63, PUSH, 2, STORE, 2,
		/* 19: a prime, if candidate < divisor * divisor */
		LOAD, 1, LOAD, 2, LOAD, 2, MUL, LESS, JUMP_ZERO, 38,
		LOAD, 3, PUSH, 1, ADD, STORE, 3, JUMP, 54,
		/* 38: none, if the divisor divides it */
		LOAD, 1, LOAD, 2, MOD, JUMP_ZERO, 54, LOAD, 2, PUSH, 1, ADD, STORE, 2, JUMP, 19,
		/* 54: the next candidate */
		LOAD, 1, PUSH, 1, ADD, STORE, 1, JUMP, 8,
		/* 63 */
		LOAD, 3, END,
	};
	/* clang-format on */
	for (; n; n--)
		expect(interpret(program, 400) == 78);
	return 78;
}

/* Regular expressions by backtracking: literals, ., classes in brackets, and the repeats * + ?. */
static bool match_here(const char *re, const char *text);

static const char *element_end(const char *re)
{
	if (*re == '[')
		while (*re != ']')
			re++;
	return re + 1;
}

static bool match_one(const char *re, char c)
{
	if (!c || c == '\n')
		return false;
	if (*re == '.')
		return true;
	if (*re != '[')
		return *re == c;
	for (re++; *re != ']'; re++) {
		if (re[1] == '-') {
			if (c >= *re && c <= re[2])
				return true;
			re += 2;
		} else if (*re == c)
			return true;
	}
	return false;
}

static bool match_repeat(const char *re, const char *next, const char *text, unsigned least)
{
	const char *t = text;

	while (match_one(re, *t))
		t++;
	for (; t >= text + least; t--)
		if (match_here(next, t))
			return true;
	return false;
}

static bool match_here(const char *re, const char *text)
{
	for (;;) {
		const char *next;

		if (!*re)
			return true;
		next = element_end(re);
		if (*next == '*' || *next == '+')
			return match_repeat(re, next + 1, text, *next == '+');
		if (*next == '?') {
			if (match_one(re, *text) && match_here(next + 1, text + 1))
				return true;
			re = next + 1;
			continue;
		}
		if (!match_one(re, *text))
			return false;
		re = next;
		text++;
	}
}

#define TEXT 8192
static char text[TEXT + 1];

static void text_prepare(void)
{
	text_make(text, TEXT, SEED);
	text[TEXT] = 0;
}

static uint64_t regex(unsigned n)
{
	static const char *const patterns[] = {"[a-m]+ [n-z]+ 42", "t.*e .*page", "w[a-z]*w ?i[st]",
					       "x+ x x"};
	uint64_t sum = 0;

	for (; n; n--)
		for (unsigned i = 0; i < 4; i++)
			for (const char *t = text; *t; t++)
				if (match_here(patterns[i], t))
					sum = mix(sum, (uint64_t)(t - text) << 8 | i);
	return sum;
}

/* Recursive descent over a generated expression. */
struct parser {
	const char *at;
	uint64_t names; /* hash of the identifiers seen */
};

static uint32_t parse_sum(struct parser *p);

static uint32_t parse_atom(struct parser *p)
{
	uint32_t value = 0;

	while (*p->at == ' ')
		p->at++;
	if (*p->at == '(') {
		p->at++;
		value = parse_sum(p);
		expect(*p->at == ')');
		p->at++;
	} else if (isdigit((unsigned char)*p->at)) {
		while (isdigit((unsigned char)*p->at))
			value = value * 10 + (uint32_t)(*p->at++ - '0');
	} else {
		expect(isalpha((unsigned char)*p->at));
		while (isalnum((unsigned char)*p->at))
			value = value * 31 + (uint32_t)*p->at++;
		p->names = mix(p->names, value);
	}
	while (*p->at == ' ')
		p->at++;
	return value;
}

static uint32_t parse_product(struct parser *p)
{
	uint32_t value = parse_atom(p);

	for (;;) {
		if (*p->at == '*') {
			p->at++;
			value *= parse_atom(p);
		} else if (*p->at == '/') {
			uint32_t by;

			p->at++;
			by = parse_atom(p);
			value = by ? value / by : 0;
		} else
			return value;
	}
}

static uint32_t parse_sum(struct parser *p)
{
	uint32_t value = parse_product(p);

	for (;;) {
		if (*p->at == '+') {
			p->at++;
			value += parse_product(p);
		} else if (*p->at == '-') {
			p->at++;
			value -= parse_product(p);
		} else
			return value;
	}
}

static char expression[16384];

static void expression_prepare(void)
{
	uint64_t seed = SEED;
	unsigned open = 0, at = 0;

	while (at < sizeof(expression) - 64) {
		uint32_t r = random_next(&seed);

		if (!(r & 3) && open < 20) {
			expression[at++] = '(';
			open++;
			continue;
		}
		if (r & 4)
			at += (unsigned)sprintf(expression + at, "%u", r >> 8 & 0xfff);
		else
			at += (unsigned)sprintf(expression + at, "v%x", r >> 8 & 0xff);
		while (open && random_next(&seed) & 1) {
			expression[at++] = ')';
			open--;
		}
		expression[at++] = ' ';
		expression[at++] = "+-*/"[r >> 28 & 3];
		expression[at++] = ' ';
	}
	expression[at++] = '1';
	while (open--)
		expression[at++] = ')';
}

static uint64_t parser(unsigned n)
{
	uint64_t sum = 0;

	for (; n; n--) {
		struct parser p = {expression, 0};

		sum = mix(sum, parse_sum(&p));
		expect(!*p.at);
		sum = mix(sum, p.names);
	}
	return sum;
}

const struct bench compute_code[] = {
	{"integer", NULL, integer, NULL, 600},
	{"recursion", NULL, recursion, NULL, 60},
	{"call_ret", NULL, call_ret, NULL, 300},
	{"indirect", NULL, indirect, NULL, 600},
	{"virtual_calls", virtual_prepare, virtual_calls, NULL, 40},
	{"branches", NULL, branches, NULL, 200},
	{"sort_callback", sort_prepare, sort_callback, NULL, 4},
	{"bytecode", NULL, bytecode, NULL, 50},
	{"regex", text_prepare, regex, NULL, 1},
	{"parser", expression_prepare, parser, NULL, 50},
	{0},
};
