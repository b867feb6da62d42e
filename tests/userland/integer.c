/* Integer instructions with their flags, over corner cases and random operands; one hash a family.
 * Flags that the SDM leaves undefined are masked out. */
#include "values.h"

#define CF 0x001u
#define PF 0x004u
#define AF 0x010u
#define ZF 0x040u
#define SF 0x080u
#define OF 0x800u
#define ARITHMETIC (CF | PF | AF | ZF | SF | OF)

#define PAIRS 3000

static struct hash h;

/* Runs one two-operand instruction with carry in, folding result and flags into the hash. */
#define BINARY(name, text, type, constraint, defined)                                          \
	static void run_##name(void)                                                               \
	{                                                                                          \
		uint64_t seed = 0x1234567;                                                             \
		uint32_t a32, b32, flags;                                                              \
                                                                                               \
		hash_start(&h);                                                                        \
		for (unsigned i = 0; i < 2 * PAIRS; i++) {                                             \
			pair_integer(i / 2, &seed, &a32, &b32);                                            \
			type a = (type)a32, b = (type)b32;                                                 \
			uint32_t carry = i & 1;                                                            \
                                                                                               \
			__asm__ volatile("btl $0, %[carry]\n\t" text "\n\tpushfl\n\tpopl %[flags]"         \
							 : [a] "+" constraint(a), [flags] "=&r"(flags)                     \
							 : [b] constraint(b), [carry] "rm"(carry)                          \
							 : "cc");                                                          \
			flags &= (defined);                                                                \
			hash_add(&h, a);                                                                   \
			hash_add(&h, flags);                                                               \
		}                                                                                      \
		hash_print(&h, #name);                                                                 \
	}

#define UNARY(name, text, type, constraint, defined) BINARY(name, text, type, constraint, defined)
#define LOGIC (ARITHMETIC & ~AF)

#define THREE_SIZES(name, defined)                                     \
	BINARY(name##b, #name "b %[b], %[a]", uint8_t, "q", defined)       \
	BINARY(name##w, #name "w %[b], %[a]", uint16_t, "r", defined)      \
	BINARY(name##l, #name "l %[b], %[a]", uint32_t, "r", defined)

#define THREE_SIZES_UNARY(name, defined)                       \
	UNARY(name##b, #name "b %[a]", uint8_t, "q", defined)      \
	UNARY(name##w, #name "w %[a]", uint16_t, "r", defined)     \
	UNARY(name##l, #name "l %[a]", uint32_t, "r", defined)

THREE_SIZES(add, ARITHMETIC)
THREE_SIZES(adc, ARITHMETIC)
THREE_SIZES(sub, ARITHMETIC)
THREE_SIZES(sbb, ARITHMETIC)
THREE_SIZES(cmp, ARITHMETIC)
THREE_SIZES(and, LOGIC)
THREE_SIZES(or, LOGIC)
THREE_SIZES(xor, LOGIC)
THREE_SIZES(test, LOGIC)
THREE_SIZES_UNARY(inc, ARITHMETIC)
THREE_SIZES_UNARY(dec, ARITHMETIC)
THREE_SIZES_UNARY(neg, ARITHMETIC)
THREE_SIZES_UNARY(not, ARITHMETIC & CF)
BINARY(imulw, "imulw %[b], %[a]", uint16_t, "r", CF | OF)
BINARY(imull, "imull %[b], %[a]", uint32_t, "r", CF | OF)
BINARY(btl, "btl %[b], %[a]", uint32_t, "r", CF)
BINARY(btsl, "btsl %[b], %[a]", uint32_t, "r", CF)
BINARY(btrw, "btrw %[b], %[a]", uint16_t, "r", CF)
BINARY(btcl, "btcl %[b], %[a]", uint32_t, "r", CF)
UNARY(bswap, "bswapl %[a]", uint32_t, "r", CF)
BINARY(setcc, "cmpl %[b], %[a]\n\tsetg %b[a]\n\tseto %h[a]", uint32_t, "Q", ARITHMETIC)
BINARY(cmovcc, "cmpl %[b], %[a]\n\tcmovbl %[b], %[a]\n\tcmovgl %[b], %[a]\n\tcmovpl %[b], %[a]", uint32_t, "r",
       ARITHMETIC)
BINARY(movsx, "movsbl %b[b], %[a]\n\tmovzwl %w[a], %[a]", uint32_t, "q", CF)
BINARY(lea, "leal 0x1234(%[a],%[b],4), %[a]", uint32_t, "r", CF)
BINARY(lahf, "xchgl %%eax, %[a]\n\tsahf\n\tlahf\n\txchgl %%eax, %[a]", uint32_t, "r", ARITHMETIC & ~OF)

/* Shifts and rotates: OF is defined for counts of one only, the rest depends on the count. */
static void run_shifts(void)
{
	uint64_t seed = 99;
	uint32_t a, b;

	hash_start(&h);
	for (unsigned i = 0; i < 4 * PAIRS; i++) {
		pair_integer(i / 4, &seed, &a, &b);
		uint32_t count = b & 31, flags, r, carry = i & 1;

#define SHIFT(text, type, mask)                                                                                 \
	do {                                                                                                        \
		type v = (type)a;                                                                                       \
		__asm__ volatile("btl $0, %3\n\t" text "\n\tpushfl\n\tpopl %1" : "+q"(v), "=&r"(flags) : "c"(count), "rm"(carry) : "cc"); \
		flags &= (mask);                                                                                        \
		r = v;                                                                                                  \
		hash_add(&h, r);                                                                                        \
		hash_add(&h, flags);                                                                                    \
	} while (0)
		uint32_t one = count == 1 ? OF : 0, result = count ? (CF | PF | ZF | SF | one) : CF;

		SHIFT("shll %%cl, %0", uint32_t, result);
		SHIFT("shrl %%cl, %0", uint32_t, result);
		SHIFT("sarl %%cl, %0", uint32_t, result);
		SHIFT("roll %%cl, %0", uint32_t, CF | one);
		SHIFT("rorl %%cl, %0", uint32_t, CF | one);
		SHIFT("rcll %%cl, %0", uint32_t, CF | one);
		SHIFT("rcrl %%cl, %0", uint32_t, CF | one);
		uint32_t fits16 = count <= 16 ? CF : 0, fits8 = count <= 8 ? CF : 0;
		uint32_t szp = count ? PF | ZF | SF : 0;
		SHIFT("shlw %%cl, %w0", uint16_t, fits16 | szp);
		SHIFT("sarw %%cl, %w0", uint16_t, CF | szp);
		SHIFT("shrb %%cl, %b0", uint8_t, fits8 | szp);
		SHIFT("rcrw %%cl, %w0", uint16_t, CF);
		SHIFT("rclb %%cl, %b0", uint8_t, CF);
		SHIFT("rolb %%cl, %b0", uint8_t, CF);
		SHIFT("rorw %%cl, %w0", uint16_t, CF);

		r = a;
		__asm__ volatile("shldl %%cl, %2, %0\n\tpushfl\n\tpopl %1" : "+r"(r), "=&r"(flags) : "r"(b), "c"(count) : "cc");
		flags &= count ? CF | PF | ZF | SF : 0;
		hash_add(&h, r);
		hash_add(&h, flags);
		r = a;
		__asm__ volatile("shrdl %%cl, %2, %0\n\tpushfl\n\tpopl %1" : "+r"(r), "=&r"(flags) : "r"(b), "c"(count) : "cc");
		flags &= count ? CF | PF | ZF | SF : 0;
		hash_add(&h, r);
		hash_add(&h, flags);
	}
	hash_print(&h, "shifts");
}

static void run_multiply_divide(void)
{
	uint64_t seed = 7;
	uint32_t a, b;

	hash_start(&h);
	for (unsigned i = 0; i < 4 * PAIRS; i++) {
		uint32_t low, high, flags;

		pair_integer(i, &seed, &a, &b);
		__asm__ volatile("mull %4\n\tpushfl\n\tpopl %2" : "=a"(low), "=d"(high), "=&r"(flags) : "0"(a), "r"(b) : "cc");
		flags &= CF | OF;
		hash_add(&h, low);
		hash_add(&h, high);
		hash_add(&h, flags);
		__asm__ volatile("imull %4\n\tpushfl\n\tpopl %2" : "=a"(low), "=d"(high), "=&r"(flags) : "0"(a), "r"(b) : "cc");
		flags &= CF | OF;
		hash_add(&h, low);
		hash_add(&h, high);
		hash_add(&h, flags);
		if (!b)
			continue;
		uint32_t top = (uint32_t)random_next(&seed) % b;

		__asm__ volatile("divl %4" : "=a"(low), "=d"(high) : "0"(a), "1"(top), "r"(b) : "cc");
		hash_add(&h, low);
		hash_add(&h, high);
		if (a == 0x80000000 && b == 0xffffffff)
			continue;
		__asm__ volatile("cltd\n\tidivl %3" : "=a"(low), "=&d"(high) : "0"(a), "r"(b) : "cc");
		hash_add(&h, low);
		hash_add(&h, high);
		uint8_t small = (uint8_t)(b | 1);
		uint16_t ax = (uint16_t)(a % small * 256 + (a >> 24));

		__asm__ volatile("divb %1" : "+a"(ax) : "q"(small) : "cc");
		hash_add(&h, ax);
	}
	hash_print(&h, "multiply-divide");
}

static void run_bits(void)
{
	uint64_t seed = 11;
	uint32_t a, b;
	uint32_t memory[64];

	memset(memory, 0, sizeof(memory));
	hash_start(&h);
	for (unsigned i = 0; i < 4 * PAIRS; i++) {
		uint32_t r = 0, flags;

		pair_integer(i, &seed, &a, &b);
		__asm__ volatile("bsfl %2, %0\n\tpushfl\n\tpopl %1" : "+r"(r), "=&r"(flags) : "r"(a) : "cc");
		flags &= ZF;
		r = a ? r : 0;
		hash_add(&h, r);
		hash_add(&h, flags);
		r = 0;
		__asm__ volatile("bsrl %2, %0\n\tpushfl\n\tpopl %1" : "+r"(r), "=&r"(flags) : "r"(a) : "cc");
		flags &= ZF;
		r = a ? r : 0;
		hash_add(&h, r);
		hash_add(&h, flags);
		/* A bit offset beyond the operand moves the address. */
		int32_t offset = (int32_t)(b % 2048) - 1024;

		__asm__ volatile("btcl %3, %0\n\tpushfl\n\tpopl %1" : "+m"(memory[32]), "=&r"(flags), "+m"(memory) : "r"(offset) : "cc");
		flags &= CF;
		hash_add(&h, flags);
		__asm__ volatile("lock btsl %3, %0\n\tpushfl\n\tpopl %1" : "+m"(memory[32]), "=&r"(flags), "+m"(memory) : "r"(offset ^ 5) : "cc");
		flags &= CF;
		hash_add(&h, flags);
	}
	hash_add(&h, memory);
	hash_print(&h, "bits");
}

static void run_compare_exchange(void)
{
	uint64_t seed = 13, wide = 5;
	uint32_t a, b;

	hash_start(&h);
	for (unsigned i = 0; i < 4 * PAIRS; i++) {
		uint32_t flags, memory, eax;

		pair_integer(i, &seed, &a, &b);
		memory = i & 1 ? a : b;
		eax = a;
		__asm__ volatile("lock cmpxchgl %3, %0\n\tpushfl\n\tpopl %2" : "+m"(memory), "+a"(eax), "=&r"(flags) : "r"(b) : "cc", "memory");
		flags &= ARITHMETIC;
		hash_add(&h, memory);
		hash_add(&h, eax);
		hash_add(&h, flags);
		uint32_t low = i & 2 ? (uint32_t)wide : a, high = (uint32_t)(wide >> 32);

		__asm__ volatile("lock cmpxchg8b %0\n\tpushfl\n\tpopl %3" : "+m"(wide), "+a"(low), "+d"(high), "=&S"(flags) : "b"(a), "c"(b) : "cc", "memory");
		flags &= ZF;
		hash_add(&h, low);
		hash_add(&h, high);
		hash_add(&h, wide);
		hash_add(&h, flags);
		memory = a;
		__asm__ volatile("lock xaddl %1, %0\n\tpushfl\n\tpopl %2" : "+m"(memory), "+r"(b), "=&r"(flags) : : "cc", "memory");
		flags &= ARITHMETIC;
		hash_add(&h, flags);
		__asm__ volatile("xchgl %1, %0" : "+m"(memory), "+r"(b) : : "memory");
		hash_add(&h, memory);
		hash_add(&h, b);
	}
	hash_print(&h, "compare-exchange");
}

static void run_decimal(void)
{
	hash_start(&h);
	for (uint32_t i = 0; i < 0x40000; i++) {
		uint32_t in = i & 0xffff, carry = i >> 16, flags;
		uint16_t ax;

#define DECIMAL(text, mask)                                                                                 \
	do {                                                                                                    \
		uint32_t start = (carry & 1 ? CF : 0) | (carry & 2 ? AF : 0) | 2;                                   \
		ax = (uint16_t)in;                                                                                  \
		__asm__ volatile("pushl %2\n\tpopfl\n\t" text "\n\tpushfl\n\tpopl %1" : "+a"(ax), "=&r"(flags) : "r"(start) : "cc"); \
		flags &= (mask);                                                                                    \
		hash_add(&h, ax);                                                                                   \
		hash_add(&h, flags);                                                                                \
	} while (0)
		if ((in >> 8) % 37 == 0) {
			DECIMAL("daa", CF | AF | ZF | SF | PF);
			DECIMAL("das", CF | AF | ZF | SF | PF);
			DECIMAL("aaa", CF | AF);
			DECIMAL("aas", CF | AF);
			DECIMAL("aad", ZF | SF | PF);
			DECIMAL("aam", ZF | SF | PF);
			DECIMAL("aad $7", ZF | SF | PF);
			DECIMAL("aam $13", ZF | SF | PF);
		}
	}
	hash_print(&h, "decimal");
}

static void run_strings(void)
{
	static uint8_t from[4096 + 64], to[4096 + 64];
	uint64_t seed = 17;

	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)random_next(&seed);
	hash_start(&h);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t r = random_next(&seed);
		unsigned source = r & 31, dest = (r >> 8) & 31, size = (r >> 16) & 0xfff;
		void *si = from + source, *di = to + dest;
		unsigned cx = size;
		uint32_t flags;

		switch (i % 8) {
		case 0: __asm__ volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory"); break;
		case 1: cx /= 4; __asm__ volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory"); break;
		case 2:
			si = from + source + size;
			di = to + dest + size;
			__asm__ volatile("std\n\trep movsb\n\tcld" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
			break;
		case 3: cx /= 2; __asm__ volatile("rep stosw" : "+D"(di), "+c"(cx) : "a"((uint32_t)(r >> 40)) : "memory"); break;
		case 4:
			memcpy(to + dest, from + source, size);
			to[dest + size / 2] ^= 1;
			__asm__ volatile("cmpl %%eax, %%eax\n\trepe cmpsb\n\tpushfl\n\tpopl %3" : "+S"(si), "+D"(di), "+c"(cx), "=&r"(flags) : : "memory", "cc");
			flags &= ARITHMETIC;
			hash_add(&h, flags);
			break;
		case 5:
			__asm__ volatile("testl %%edi, %%edi\n\trepne scasb\n\tpushfl\n\tpopl %2" : "+D"(di), "+c"(cx), "=&r"(flags) : "a"((uint32_t)(r >> 40)) : "memory", "cc");
			flags &= size ? ARITHMETIC : 0;
			hash_add(&h, flags);
			break;
		case 6: /* overlapping, a pattern that spreads */
			di = to + dest + 1;
			si = to + dest;
			__asm__ volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
			break;
		case 7: {
			uint32_t eax = 0, sum = 0;

			for (unsigned k = 0; k < 16; k++) {
				__asm__ volatile("lodsl" : "+S"(si), "=a"(eax));
				sum += eax;
			}
			hash_add(&h, sum);
			break;
		}
		}
		hash_add(&h, cx);
		uint32_t moved = (uint32_t)((uint8_t *)di - to);

		hash_add(&h, moved);
		hash_bytes(&h, to, sizeof(to));
	}
	hash_print(&h, "strings");
}

/* Stack and flow: enter/leave, pusha/popa, loop, jecxz, xlat, far-off calls through a table. */
static uint32_t twist0(uint32_t x) { return x * 3 + 1; }
static uint32_t twist1(uint32_t x) { return x ^ (x >> 7); }
static uint32_t twist2(uint32_t x) { return (x << 5) | (x >> 27); }
static uint32_t twist3(uint32_t x) { return x - 0x1234567; }

static void run_flow(void)
{
	static uint32_t (*const volatile twists[])(uint32_t) = {twist0, twist1, twist2, twist3};
	static uint8_t table[256];
	uint32_t x = 1;

	for (unsigned i = 0; i < 256; i++)
		table[i] = (uint8_t)(i * 167 + 13);
	hash_start(&h);
	for (unsigned i = 0; i < 200000; i++) {
		x = twists[x & 3](x);
		switch (x % 11) { /* a jump table */
		case 0: x += 5; break;
		case 1: x ^= 0x55; break;
		case 2: x *= 7; break;
		case 3: x -= 1; break;
		case 4: x = ~x; break;
		case 5: x += x >> 3; break;
		case 6: x ^= x << 11; break;
		case 7: x += 77; break;
		case 8: x = -x; break;
		case 9: x |= 0x80; break;
		default: x &= ~0x80u; break;
		}
		if (i % 16 == 0) {
			uint32_t y = x, count = x & 15, al = x & 255;

			__asm__ volatile("jecxz 2f\n1:\tleal 1(%0,%0), %0\n\tloop 1b\n2:" : "+r"(y), "+c"(count) : : "cc");
			__asm__ volatile("xlatb" : "+a"(al) : "b"(table));
			__asm__ volatile("enter $16, $0\n\tmovl %0, -4(%%ebp)\n\tpushal\n\txorl %%ecx, %%ecx\n\tpopal\n\taddl -4(%%ebp), %0\n\tleave"
							 : "+r"(y) : : "cc", "memory");
			hash_add(&h, y);
			hash_add(&h, al);
		}
	}
	hash_add(&h, x);
	hash_print(&h, "flow");
}

int main(void)
{
#define RUN3(name) run_##name##b(), run_##name##w(), run_##name##l()
	RUN3(add), RUN3(adc), RUN3(sub), RUN3(sbb), RUN3(cmp);
	RUN3(and), RUN3(or), RUN3(xor), RUN3(test);
	RUN3(inc), RUN3(dec), RUN3(neg), RUN3(not);
	run_imulw(), run_imull();
	run_btl(), run_btsl(), run_btrw(), run_btcl(), run_bswap();
	run_setcc(), run_cmovcc(), run_movsx(), run_lea(), run_lahf();
	run_shifts();
	run_multiply_divide();
	run_bits();
	run_compare_exchange();
	run_decimal();
	run_strings();
	run_flow();
	return 0;
}
