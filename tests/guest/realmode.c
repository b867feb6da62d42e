/* Real mode (SDM vol. 3B 21.1), and the ways in and out (vol. 3A 10.9). The cases are in realmode-16.S. */
#include "guest.h"
#include "realmode.h"

extern const char real_start[], real_end[];
void real_enter(void);

static uint32_t result(unsigned n, unsigned word)
{
	return MEM32(REAL_RESULTS + 8 * n + 4 * word);
}

/* An exception at the instruction itself, or length bytes after it. */
static void caught(const char *label, unsigned n, unsigned vector, uint32_t length, const char *section)
{
	sdm(section);
	check(label, result(n, 0) == 0xffffffff ? 0xffffffff : result(n, 0) & 0xffff, vector);
	sdm(section);
	check("  ip", result(n, 0) >> 16, result(n, 1) + length);
}

void test(void)
{
	struct table_register *real_gdtr = (struct table_register *)(REAL_RESULTS + REAL_GDTR);

	set_segment(0x30, REAL_CODE, 0xffff, SEG_CODE16);
	set_segment(0x38, REAL_DATA, 0xffff, SEG_DATA16);
	memcpy((void *)REAL_CODE, real_start, real_end - real_start);
	memset((void *)REAL_RESULTS, 0, 0x1000);
	*real_gdtr = gdtr;
	MEM32(REAL_ABOVE) = 0xab0fe000;
	real_enter();

	caught("div", 0, 0, 0, NULL);
	caught("int3", 1, 3, 1, NULL);
	caught("into", 2, 4, 1, NULL);
	caught("bound", 3, 5, 0, NULL);
	caught("ud2", 4, 6, 0, NULL);
	caught("sldt", 5, 6, 0, NULL);
	caught("ltr", 6, 6, 0, NULL);
	caught("verr", 7, 6, 0, NULL);
	caught("arpl", 8, 6, 0, NULL);
	caught("lar", 9, 6, 0, NULL);
	caught("word at ffff", 10, 13, 0, "3B 21.1.1");
	caught("above 64 KiB", 11, 13, 0, "3B 21.1.1");
	caught("single step", 12, 1, 1, NULL);
	check("int: flags inside and pushed", result(13, 0) & 0x0fff0fff, 0x06020402);
	check("  flags and sp after", result(13, 1) & 0xffff0700, 0x00000600);
	check("smsw", result(14, 0) & 0x2f, result(14, 1) & 0x2f);
	check("  PE", result(14, 0) & 1, 0);
	check("popf with IOPL and NT", result(15, 0) & 0x7fff, 0x7202);
	check("  and without", result(15, 1) & 0x7fff, 2);
	check("imul, 32 bits", result(16, 0), 0x12345678u * 3);
	check("lea with a scaled index", result(16, 1), 0x120);
	check("pushl, two popw", result(17, 0) | result(17, 1) << 16, 0x89abcdef);
	check("far call: parameter and sp", result(18, 0), 0x11110000);
	check("far jmp through memory", result(18, 1), 0);
	check("rep stosw around the segment", result(19, 0), 0x43214321);
	check("  di", result(19, 1), 4);
	check("stack around the segment", result(20, 0), 0xfffefff4);
	check("  popped", result(20, 1), 0x55667788);
	check("hlt and the timer", result(21, 0), 1);
	check("interrupt table elsewhere", result(23, 0), 0x3f3f);
	caught("vector beyond the table", 22, 13, 0, NULL);
	check("ffff:0010", result(24, 0), MEM32(0x100000));
	check("4 GiB limit from protected mode", result(25, 0), 0xab0fe000);
	check("  after a reload in real mode", result(25, 1), 0xab0fe000);
	check("cs after PE on, no jmp", result(26, 0), REAL_CODE >> 4);
	check("lmsw sets PE", result(27, 1) & 1, 1);
	check("lmsw does not clear it", result(27, 0) & 1, 1);
}
