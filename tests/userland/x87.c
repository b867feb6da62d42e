/* The x87: results and status over corner cases (unsupported encodings too) and random operands, in every
 * rounding mode and precision. One hash a family. Of the condition codes only those that the SDM defines count. */
#include "values.h"

#define PAIRS 4000
#define EXCEPTIONS 0x00ffu
#define C0 0x0100u
#define C1 0x0200u
#define C2 0x0400u
#define C3 0x4000u
#define TOP 0x3800u

static struct hash h;

static const uint16_t controls[] = { /* exceptions masked; PC in 8-9, RC in 10-11 */
	0x037f, 0x077f, 0x0b7f, 0x0f7f, 0x027f, 0x067f, 0x0a7f, 0x0e7f, 0x007f, 0x047f, 0x087f, 0x0c7f,
};

/* One instruction on ST0 = a, ST1 = b that leaves its result in ST0 and one register to drop. */
#define STACK2(name, text, drop, mask)                                                                   \
	static void run_##name(void)                                                                         \
	{                                                                                                    \
		hash_start(&h);                                                                                  \
		for (unsigned c = 0; c < COUNT(controls); c++) {                                                 \
			uint64_t seed = 41 + c;                                                                      \
			struct extended a, b, result;                                                                \
			uint16_t status;                                                                             \
                                                                                                         \
			for (unsigned i = 0; i < PAIRS; i++) {                                                       \
				pair_extended(i, &seed, &a, &b);                                                         \
				__asm__ volatile("fninit\n\tfldcw %[cw]\n\tfldt %[b]\n\tfldt %[a]\n\tfnclex\n\t" text    \
								 "\n\tfnstsw %[status]\n\tfstpt %[result]\n\t" drop                      \
								 : [result] "=m"(result), [status] "=m"(status)                          \
								 : [a] "m"(a), [b] "m"(b), [cw] "m"(controls[c])                         \
								 : "ax", "cc", "memory");                                                \
				status &= (mask);                                                                        \
				hash_add(&h, result);                                                                    \
				hash_add(&h, status);                                                                    \
			}                                                                                            \
		}                                                                                                \
		__asm__ volatile("fninit");                                                                      \
		hash_print(&h, #name);                                                                           \
	}

#define DROP "fstp %%st(0)"
#define DEFINED (EXCEPTIONS | C1 | TOP)

STACK2(fadd, "fadd %%st(1), %%st", DROP, DEFINED)
STACK2(fsub, "fsub %%st(1), %%st", DROP, DEFINED)
STACK2(fsubr, "fsubr %%st(1), %%st", DROP, DEFINED)
STACK2(fmul, "fmul %%st(1), %%st", DROP, DEFINED)
STACK2(fdiv, "fdiv %%st(1), %%st", DROP, DEFINED)
STACK2(fdivrp, "fdivrp %%st, %%st(1)", "", DEFINED)
STACK2(fsqrt, "fsqrt", DROP, DEFINED)
STACK2(frndint, "frndint", DROP, DEFINED)
STACK2(fabs_fchs, "fabs\n\tfxch %%st(1)\n\tfchs\n\tfxch %%st(1)", DROP, DEFINED &~C1)
STACK2(fscale, "fscale", DROP, DEFINED)
STACK2(fxtract, "fxtract\n\tfxch %%st(1)\n\tfstp %%st(2)", DROP, DEFINED)
STACK2(fprem, "fprem", DROP, EXCEPTIONS | TOP | C2)
STACK2(fprem1, "fprem1", DROP, EXCEPTIONS | TOP | C2)
STACK2(fxam, "fxam", DROP, DEFINED | C0 | C2 | C3)
STACK2(fcom, "fcom %%st(1)", DROP, EXCEPTIONS | TOP | C0 | C2 | C3)
STACK2(fucom, "fucom %%st(1)", DROP, EXCEPTIONS | TOP | C0 | C2 | C3)
STACK2(ftst, "ftst", DROP, EXCEPTIONS | TOP | C0 | C2 | C3)
STACK2(fcmov, "fucomi %%st(1), %%st\n\tfcmovb %%st(1), %%st\n\tfcmovu %%st(1), %%st", DROP, EXCEPTIONS | TOP)
STACK2(f2xm1, "f2xm1", DROP, EXCEPTIONS | TOP)
STACK2(fyl2x, "fyl2x", "", EXCEPTIONS | TOP)
STACK2(fyl2xp1, "fyl2xp1", "", EXCEPTIONS | TOP)
STACK2(fpatan, "fpatan", "", EXCEPTIONS | TOP)
STACK2(fsin, "fsin", DROP, EXCEPTIONS | TOP | C2)
STACK2(fcos, "fcos", DROP, EXCEPTIONS | TOP | C2)
STACK2(fsincos, "fsincos\n\tfstp %%st(2)\n\tfnop", "", EXCEPTIONS | C2)
STACK2(fptan, "fptan\n\tfstp %%st(2)\n\tfnop", "", EXCEPTIONS | C2)
STACK2(overflow, "fldl2e\n\tfldl2t\n\tfldlg2\n\tfldln2\n\tfld1\n\tfldz\n\tfldpi\n\tfaddp\n\tfmulp\n\tfaddp\n\tfmulp", "", DEFINED)

/* Stores and loads in every format. */
static void run_formats(void)
{
	hash_start(&h);
	for (unsigned c = 0; c < COUNT(controls); c++) {
		uint64_t seed = 43 + c;
		struct extended a, b, result;
		uint16_t status, i16;
		uint32_t i32, f32;
		uint64_t i64, f64;
		uint8_t decimal[10];

		for (unsigned i = 0; i < PAIRS; i++) {
			pair_extended(i, &seed, &a, &b);
#define STORE(text, out)                                                                          \
	do {                                                                                          \
		__asm__ volatile("fninit\n\tfldcw %3\n\tfldt %2\n\tfnclex\n\t" text " %0\n\tfnstsw %1"    \
						 : "=m"(out), "=m"(status) : "m"(a), "m"(controls[c]) : "memory");        \
		status &= DEFINED;                                                                        \
		hash_add(&h, out);                                                                        \
		hash_add(&h, status);                                                                     \
	} while (0)
			STORE("fistps", i16);
			STORE("fistpl", i32);
			STORE("fistpll", i64);
			STORE("fstps", f32);
			STORE("fstpl", f64);
			STORE("fbstp", decimal);
#define LOAD(text, in)                                                                                      \
	do {                                                                                                    \
		__asm__ volatile("fninit\n\tfldcw %3\n\tfldt %4\n\t" text " %2\n\tfnstsw %1\n\tfstpt %0"            \
						 : "=m"(result), "=m"(status) : "m"(in), "m"(controls[c]), "m"(b) : "memory");      \
		status &= DEFINED;                                                                                  \
		hash_add(&h, result);                                                                               \
		hash_add(&h, status);                                                                               \
	} while (0)
			LOAD("filds", i16);
			LOAD("fildl", i32);
			LOAD("fildll", i64);
			LOAD("flds", f32);
			LOAD("fldl", f64);
			LOAD("fadds", f32);
			LOAD("fmull", f64);
			LOAD("fisubs", i16);
			LOAD("fidivl", i32);
			for (unsigned k = 0; k < 9; k++)
				decimal[k] = (uint8_t)(random_next(&seed) % 10 | random_next(&seed) % 10 << 4);
			decimal[9] &= 0x80;
			LOAD("fbld", decimal);
		}
	}
	__asm__ volatile("fninit");
	hash_print(&h, "formats");
}

/* The environment survives a store and a load; the stack over- and underflows as it should. */
static void run_environment(void)
{
	uint32_t environment[7];
	uint8_t image[108];
	uint16_t status;
	struct extended result;

	hash_start(&h);
	__asm__ volatile("fninit\n\tfld1\n\tfldz\n\tfldpi\n\tfnstenv %0\n\tfninit\n\tfldenv %0\n\tfstpt %1\n\tfnstsw %2"
					 : "=m"(environment), "=m"(result), "=m"(status) : : "memory");
	environment[0] &= 0xffff, environment[1] &= 0xffff, environment[2] &= 0xffff;
	hash_bytes(&h, environment, 12);
	hash_add(&h, result);
	hash_add(&h, status);
	__asm__ volatile("fninit\n\tfld1\n\tfldpi\n\tfldl2e\n\tfnsave %0\n\tfrstor %0\n\tfaddp\n\tfaddp\n\tfstpt %1\n\tfnstsw %2"
					 : "=m"(image), "=m"(result), "=m"(status) : : "memory");
	hash_bytes(&h, image + 28, 30);
	hash_add(&h, result);
	hash_add(&h, status);
	for (unsigned n = 0; n < 12; n++) {
		__asm__ volatile("fninit");
		for (unsigned k = 0; k < n; k++)
			__asm__ volatile("fld1");
		__asm__ volatile("fnstsw %0\n\tfaddp\n\tfaddp\n\tfstpt %1" : "=m"(status), "=m"(result));
		hash_add(&h, status);
		hash_add(&h, result);
		__asm__ volatile("fnstsw %0" : "=m"(status));
		status &= DEFINED;
		hash_add(&h, status);
	}
	__asm__ volatile("fninit");
	hash_print(&h, "environment");
}

int main(void)
{
	run_fadd(), run_fsub(), run_fsubr(), run_fmul(), run_fdiv(), run_fdivrp(), run_fsqrt(), run_frndint();
	run_fabs_fchs(), run_fscale(), run_fxtract(), run_fprem(), run_fprem1(), run_fxam(), run_fcom(), run_fucom();
	run_ftst(), run_fcmov(), run_f2xm1(), run_fyl2x(), run_fyl2xp1(), run_fpatan(), run_fsin(), run_fcos();
	run_fsincos(), run_fptan(), run_overflow(), run_formats(), run_environment();
	return 0;
}
