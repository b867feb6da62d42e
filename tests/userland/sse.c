/* SSE to SSE4.2 and MMX: results and MXCSR flags over corner cases and random operands, in every rounding mode,
 * with and without flush-to-zero and denormals-are-zero. One hash a family; a set of instructions that the CPU
 * does not announce prints "absent". */
#include <cpuid.h>
#include "values.h"

#define PAIRS 3000

typedef union {
	uint64_t q[2];
	uint32_t d[4];
	uint16_t w[8];
	uint8_t b[16];
} __attribute__((aligned(16))) vector;

static struct hash h;

static const uint32_t controls[] = { /* exceptions masked; RC in 13-14, FTZ 15, DAZ 6 */
	0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9fc0, 0xbfc0, 0xdfc0, 0xffc0, 0x9f80, 0x1fc0,
};

static inline void mxcsr_load(uint32_t value)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(value));
}

static inline uint32_t mxcsr_store(void)
{
	uint32_t value;

	__asm__ volatile("stmxcsr %0" : "=m"(value));
	return value;
}

enum operands { DOUBLES, FLOATS, INTEGERS };

static void pair_vector(enum operands kind, unsigned i, uint64_t *seed, vector *a, vector *b)
{
	if (kind == DOUBLES) {
		for (unsigned k = 0; k < 2; k++)
			pair_double(2 * i + k, seed, &a->q[k], &b->q[k]);
	} else if (kind == FLOATS) {
		for (unsigned k = 0; k < 4; k++)
			pair_float(4 * i + k, seed, &a->d[k], &b->d[k]);
	} else {
		for (unsigned k = 0; k < 4; k++)
			pair_integer(4 * i + k, seed, &a->d[k], &b->d[k]);
	}
}

/* One instruction "op %xmm1, %xmm0" over all operands under every control word. */
#define VECTOR(name, text, kind)                                                              \
	static void run_##name(void)                                                              \
	{                                                                                         \
		hash_start(&h);                                                                       \
		for (unsigned c = 0; c < ((kind) == INTEGERS ? 1 : COUNT(controls)); c++) {           \
			uint64_t seed = 31 + c;                                                           \
			vector a, b;                                                                      \
                                                                                              \
			for (unsigned i = 0; i < PAIRS; i++) {                                            \
				pair_vector(kind, i, &seed, &a, &b);                                          \
				mxcsr_load(controls[c]);                                                      \
				__asm__ volatile("movdqa %0, %%xmm0\n\tmovdqu %1, %%xmm1\n\t" text            \
								 "\n\tmovdqa %%xmm0, %0"                                      \
								 : "+m"(a) : "m"(b) : "xmm0", "xmm1", "xmm2", "cc", "memory"); \
				uint32_t status = mxcsr_store();                                              \
				hash_add(&h, a);                                                              \
				hash_add(&h, status);                                                         \
			}                                                                                 \
		}                                                                                     \
		mxcsr_load(0x1f80);                                                                   \
		hash_print(&h, #name);                                                                \
	}

/* One instruction whose result is a general register or the flags, left in %eax and %edx. */
#define TO_INTEGER(name, text, kind)                                                          \
	static void run_##name(void)                                                              \
	{                                                                                         \
		hash_start(&h);                                                                       \
		for (unsigned c = 0; c < COUNT(controls); c++) {                                      \
			uint64_t seed = 37 + c;                                                           \
			vector a, b;                                                                      \
                                                                                              \
			for (unsigned i = 0; i < PAIRS; i++) {                                            \
				uint32_t eax = 0, edx = 0;                                                    \
                                                                                              \
				pair_vector(kind, i, &seed, &a, &b);                                          \
				mxcsr_load(controls[c]);                                                      \
				__asm__ volatile("movdqa %2, %%xmm0\n\tmovdqa %3, %%xmm1\n\t" text            \
								 : "+a"(eax), "+d"(edx) : "m"(a), "m"(b) : "xmm0", "xmm1", "ecx", "cc"); \
				uint32_t status = mxcsr_store();                                              \
				hash_add(&h, eax);                                                            \
				hash_add(&h, edx);                                                            \
				hash_add(&h, status);                                                         \
			}                                                                                 \
		}                                                                                     \
		mxcsr_load(0x1f80);                                                                   \
		hash_print(&h, #name);                                                                \
	}

#define ARITHMETIC(op)                                     \
	VECTOR(op##pd, #op "pd %%xmm1, %%xmm0", DOUBLES)       \
	VECTOR(op##sd, #op "sd %%xmm1, %%xmm0", DOUBLES)       \
	VECTOR(op##ps, #op "ps %%xmm1, %%xmm0", FLOATS)        \
	VECTOR(op##ss, #op "ss %%xmm1, %%xmm0", FLOATS)

ARITHMETIC(add)
ARITHMETIC(sub)
ARITHMETIC(mul)
ARITHMETIC(div)
ARITHMETIC(min)
ARITHMETIC(max)
ARITHMETIC(sqrt)
#define COMPARES(suffix)                                                                                    \
	"movdqa %%xmm0, %%xmm2\n\tcmplt" suffix " %%xmm1, %%xmm0\n\tcmpunord" suffix " %%xmm1, %%xmm2\n\t"      \
	"pslld $3, %%xmm2\n\tpxor %%xmm2, %%xmm0\n\tcmpneq" suffix " %%xmm1, %%xmm2\n\tpslld $7, %%xmm2\n\tpxor %%xmm2, %%xmm0"
VECTOR(cmppd, COMPARES("pd"), DOUBLES)
VECTOR(cmpss, COMPARES("ss"), FLOATS)
VECTOR(cmpps, COMPARES("ps"), FLOATS)
VECTOR(cvtpd2ps, "cvtpd2ps %%xmm1, %%xmm0", DOUBLES)
VECTOR(cvtps2pd, "cvtps2pd %%xmm1, %%xmm0", FLOATS)
VECTOR(cvtsd2ss, "cvtsd2ss %%xmm1, %%xmm0", DOUBLES)
VECTOR(cvtss2sd, "cvtss2sd %%xmm1, %%xmm0", FLOATS)
VECTOR(cvtpd2dq, "cvtpd2dq %%xmm1, %%xmm0", DOUBLES)
VECTOR(cvttpd2dq, "cvttpd2dq %%xmm1, %%xmm0", DOUBLES)
VECTOR(cvtps2dq, "cvtps2dq %%xmm1, %%xmm0", FLOATS)
VECTOR(cvttps2dq, "cvttps2dq %%xmm1, %%xmm0", FLOATS)
VECTOR(cvtdq2pd, "cvtdq2pd %%xmm1, %%xmm0\n\taddpd %%xmm0, %%xmm0", INTEGERS)
VECTOR(cvtdq2ps, "cvtdq2ps %%xmm1, %%xmm0", INTEGERS)
TO_INTEGER(cvtsd2si, "cvtsd2si %%xmm0, %0\n\tcvttsd2si %%xmm1, %1", DOUBLES)
TO_INTEGER(cvtss2si, "cvtss2si %%xmm0, %0\n\tcvttss2si %%xmm1, %1", FLOATS)
TO_INTEGER(comisd, "comisd %%xmm1, %%xmm0\n\tpushfl\n\tpopl %0\n\tucomisd %%xmm0, %%xmm1\n\tpushfl\n\tpopl %1\n\tandl $0x8d5, %0\n\tandl $0x8d5, %1", DOUBLES)
TO_INTEGER(comiss, "comiss %%xmm1, %%xmm0\n\tpushfl\n\tpopl %0\n\tucomiss %%xmm0, %%xmm1\n\tpushfl\n\tpopl %1\n\tandl $0x8d5, %0\n\tandl $0x8d5, %1", FLOATS)
TO_INTEGER(movmsk, "movmskpd %%xmm0, %0\n\tpmovmskb %%xmm1, %1\n\tpextrw $3, %%xmm0, %%ecx\n\taddl %%ecx, %0", DOUBLES)
VECTOR(rcpps, "rcpps %%xmm1, %%xmm0\n\trsqrtps %%xmm1, %%xmm1\n\tpxor %%xmm1, %%xmm0", FLOATS)
VECTOR(shuffles, "shufps $0x1b, %%xmm1, %%xmm0\n\tpshufd $0x4e, %%xmm0, %%xmm0\n\tpunpcklbw %%xmm1, %%xmm0\n\t"
				 "pshuflw $0x93, %%xmm0, %%xmm0\n\tunpckhps %%xmm1, %%xmm0\n\tshufpd $1, %%xmm1, %%xmm0\n\tpinsrw $5, %%eax, %%xmm1", INTEGERS)
VECTOR(packs, "packssdw %%xmm1, %%xmm0\n\tpacksswb %%xmm1, %%xmm0\n\tpunpckhwd %%xmm1, %%xmm0\n\tpackuswb %%xmm0, %%xmm0", INTEGERS)
VECTOR(paddsat, "paddsb %%xmm1, %%xmm0\n\tpaddusw %%xmm1, %%xmm0\n\tpsubsw %%xmm1, %%xmm0\n\tpsubusb %%xmm1, %%xmm0\n\tpavgb %%xmm1, %%xmm0", INTEGERS)
VECTOR(paddsub, "paddb %%xmm1, %%xmm0\n\tpsubw %%xmm1, %%xmm0\n\tpaddd %%xmm1, %%xmm0\n\tpsubq %%xmm1, %%xmm0\n\tpaddq %%xmm0, %%xmm0", INTEGERS)
VECTOR(pmul, "pmullw %%xmm1, %%xmm0\n\tpmulhw %%xmm1, %%xmm0\n\tpmaddwd %%xmm1, %%xmm0\n\tpmuludq %%xmm1, %%xmm0\n\tpsadbw %%xmm1, %%xmm0", INTEGERS)
VECTOR(pcmp, "pcmpgtb %%xmm1, %%xmm0\n\tmovdqa %%xmm0, %%xmm2\n\tpcmpeqw %%xmm1, %%xmm2\n\tpcmpgtd %%xmm1, %%xmm0\n\tpxor %%xmm2, %%xmm0\n\t"
			 "pmaxub %%xmm1, %%xmm0\n\tpminsw %%xmm1, %%xmm0", INTEGERS)
VECTOR(pshift, "psllw $3, %%xmm0\n\tpsrad $5, %%xmm0\n\tpsrldq $2, %%xmm0\n\tpand %%xmm1, %%xmm0\n\tpsrlq $60, %%xmm1\n\tpsllq %%xmm1, %%xmm0\n\tpandn %%xmm1, %%xmm0", INTEGERS)
VECTOR(mmx, "movdq2q %%xmm0, %%mm0\n\tmovdq2q %%xmm1, %%mm1\n\tpaddsw %%mm1, %%mm0\n\tpmulhw %%mm1, %%mm0\n\tpunpcklwd %%mm1, %%mm0\n\t"
			"psllq $7, %%mm0\n\tpackssdw %%mm1, %%mm0\n\tmovq2dq %%mm0, %%xmm0\n\temms", INTEGERS)
VECTOR(cvtmmx, "cvtpd2pi %%xmm0, %%mm0\n\tcvttps2pi %%xmm1, %%mm1\n\tcvtpi2ps %%mm0, %%xmm0\n\tcvtpi2pd %%mm1, %%xmm1\n\txorps %%xmm1, %%xmm0\n\temms", DOUBLES)

VECTOR(sse3, "haddpd %%xmm1, %%xmm0\n\thsubps %%xmm1, %%xmm0\n\taddsubps %%xmm1, %%xmm0\n\tmovddup %%xmm0, %%xmm1\n\tmovshdup %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm0", DOUBLES)
VECTOR(ssse3, "pshufb %%xmm1, %%xmm0\n\tphaddw %%xmm1, %%xmm0\n\tpmaddubsw %%xmm1, %%xmm0\n\tpmulhrsw %%xmm1, %%xmm0\n\tpsignd %%xmm1, %%xmm0\n\tpabsb %%xmm0, %%xmm0\n\tpalignr $5, %%xmm1, %%xmm0", INTEGERS)
VECTOR(sse41, "pmulld %%xmm1, %%xmm0\n\tpminsd %%xmm1, %%xmm0\n\tpmaxuw %%xmm1, %%xmm0\n\tpackusdw %%xmm1, %%xmm0\n\tpmovzxbw %%xmm0, %%xmm2\n\t"
			  "pmuldq %%xmm2, %%xmm0\n\tpblendw $0x5a, %%xmm1, %%xmm0\n\tphminposuw %%xmm0, %%xmm2\n\tpxor %%xmm2, %%xmm0\n\tmpsadbw $5, %%xmm1, %%xmm0", INTEGERS)
VECTOR(round, "roundpd $4, %%xmm0, %%xmm0\n\troundps $1, %%xmm1, %%xmm1\n\tpxor %%xmm1, %%xmm0", DOUBLES)
VECTOR(dot, "movdqa %%xmm0, %%xmm2\n\tdpps $0xf3, %%xmm1, %%xmm0\n\tdppd $0x31, %%xmm1, %%xmm2\n\tpxor %%xmm2, %%xmm0", FLOATS)
TO_INTEGER(sse42, "movl $16, %0\n\tmovl $12, %1\n\tpcmpestri $0x1a, %%xmm1, %%xmm0\n\tmovl %%ecx, %0\n\tpcmpistri $0x44, %%xmm1, %%xmm0\n\tmovl %%ecx, %1", INTEGERS)
TO_INTEGER(ptest, "ptest %%xmm1, %%xmm0\n\tpushfl\n\tpopl %0\n\tandl $0x41, %0\n\tpextrd $2, %%xmm0, %1\n\tcrc32l %0, %1", INTEGERS)

static void run_fxsave(void)
{
	static uint8_t area[512] __attribute__((aligned(16)));
	vector a = {.d = {1, 2, 3, 4}};

	hash_start(&h);
	mxcsr_load(0x1f80);
	__asm__ volatile("fninit\n\tfldpi\n\tfld1\n\tmovdqa %1, %%xmm3\n\tfxsave %0\n\tpxor %%xmm3, %%xmm3\n\tfninit\n\tfxrstor %0\n\tfaddp\n\tfstp %%st(0)\n\tmovdqa %%xmm3, %1"
					 : "+m"(area), "+m"(a) : : "xmm3", "memory");
	hash_add(&h, a);
	hash_bytes(&h, area, 5);           /* FCW, FSW, FTW */
	hash_bytes(&h, area + 24, 4);      /* MXCSR */
	hash_bytes(&h, area + 32, 26);     /* ST0, ST1 */
	hash_bytes(&h, area + 160 + 48, 16); /* XMM3 */
	hash_print(&h, "fxsave");
}

int main(void)
{
	unsigned eax, ebx, ecx = 0, edx;

	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
#define RUN4(op) run_##op##pd(), run_##op##sd(), run_##op##ps(), run_##op##ss()
	RUN4(add), RUN4(sub), RUN4(mul), RUN4(div), RUN4(min), RUN4(max), RUN4(sqrt);
	run_cmppd(), run_cmpss(), run_cmpps();
	run_cvtpd2ps(), run_cvtps2pd(), run_cvtsd2ss(), run_cvtss2sd(), run_cvtpd2dq(), run_cvttpd2dq();
	run_cvtps2dq(), run_cvttps2dq(), run_cvtdq2pd(), run_cvtdq2ps(), run_cvtsd2si(), run_cvtss2si();
	run_comisd(), run_comiss(), run_movmsk(), run_rcpps(), run_shuffles(), run_packs(), run_paddsat();
	run_paddsub(), run_pmul(), run_pcmp(), run_pshift(), run_mmx(), run_cvtmmx(), run_fxsave();
#define IF(bit, name)                      \
	do {                                   \
		if (ecx & (1u << (bit)))           \
			run_##name();                  \
		else                               \
			printf(#name " absent\n");     \
	} while (0)
	IF(0, sse3);
	IF(9, ssse3);
	IF(19, sse41);
	IF(19, round);
	IF(19, dot);
	IF(20, sse42);
	IF(20, ptest);
	return 0;
}
