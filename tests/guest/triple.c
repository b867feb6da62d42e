/*
 * A triple fault (SDM vol. 3A 6.15 #DF, shutdown): an exception with an empty IDT. The run must end here, in
 * whatever way the machine ends runs that reset; run-guest judges.
 */
#include "guest.h"

void test(void)
{
	static const struct table_register nothing = {0, 0};

	print("going down\n");
	__asm__ volatile("lidt %0; ud2" : : "m"(nothing));
	print("still here\n");
	check("not shut down", 1, 0);
}
