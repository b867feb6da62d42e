/* CPUID, and the translator's counters, which bt86 shows in leaves of its own. */
#include "demo.h"

#define EFLAGS_ID	(1u << 21)

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_COUNTERS	0x40000100u /* eax: how many; then a leaf each, low half in eax, high half in ebx */

static const char *const counter_names[] = {
	"blocks",      "instructions", "chains",      "callouts",	 "hidden faults",
	"true faults", "trace hits",   "adaptations", "window switches",
};

#define COUNTER_NAMES (sizeof(counter_names) / sizeof(counter_names[0]))

/* A CPU that knows CPUID lets EFLAGS.ID be changed (SDM vol. 1 3.4.3.3). */
bool cpu_has_cpuid(void)
{
	uint32_t before, after;

	__asm__ volatile("pushfl; pushfl; xorl %2, (%%esp); popfl; pushfl; popl %1; popl %0; pushl %0; popfl"
			 : "=&r"(before), "=&r"(after)
			 : "i"(EFLAGS_ID)
			 : "cc");
	return ((before ^ after) & EFLAGS_ID) != 0;
}

struct cpuid cpu_id(uint32_t leaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "0"(leaf), "2"(0));
	return r;
}

/* Twelve characters and a zero; false where nothing admits to being a hypervisor. */
static bool hypervisor_signature(char text[13])
{
	struct cpuid r;

	if (!cpu_has_cpuid() || !(cpu_id(1).ecx & CPUID_ECX_HYPERVISOR))
		return false;
	r = cpu_id(LEAF_HYPERVISOR);
	for (int i = 0; i < 4; i++) {
		text[i] = r.ebx >> 8 * i;
		text[4 + i] = r.ecx >> 8 * i;
		text[8 + i] = r.edx >> 8 * i;
	}
	text[12] = 0;
	return true;
}

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

void stats_show(void)
{
	char signature[13];
	uint32_t count;

	topic("translator");
	if (!hypervisor_signature(signature)) {
		print("none: this CPU knows of no hypervisor\n");
		return;
	}
	if (!same_text(signature, "bt86bt86bt86")) {
		print("none of ours: the hypervisor calls itself '%s'\n", signature);
		return;
	}
	count = cpu_id(LEAF_COUNTERS).eax;
	if (count == 0) {
		print("not in use: bt86 runs this guest with another accelerator\n");
		return;
	}
	for (uint32_t i = 0; i < count && i < COUNTER_NAMES; i++) {
		struct cpuid r = cpu_id(LEAF_COUNTERS + 1 + i);

		print("%s%q %s", i ? ", " : "", (uint64_t)r.ebx << 32 | r.eax, counter_names[i]);
	}
	print("\n");
}
