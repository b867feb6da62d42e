#include "smc.h"

#include "cmdline.h"

static const struct smc_group *const groups[] = {&smc_stores, &smc_generated, &smc_mixed, &smc_pages,
						 &smc_devices};

/* By turns at CPL 0 and 3. */
static uint32_t run_code(const struct smc_case *c, uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		if (i & 1)
			user_mode();
		run(c->code);
		wrong += out.vector != DONE_VECTOR || out.eax != c->want;
	}
	return wrong;
}

static void run_case(const struct smc_case *c, uint32_t rounds)
{
	uint32_t wrong;

	if (c->cpuid && !cpu_has(c->cpuid)) {
		cpu_line();
		check(c->name, 0, 0);
		return;
	}
	wrong = c->run ? c->run(rounds) : run_code(c, rounds);
	check(c->name, wrong, 0);
}

static bool same_word(const char *text, const char *word)
{
	while (*word && *text == *word)
		text++, word++;
	return !*word && (!*text || *text == ' ');
}

void test(void)
{
	const char *name = option("case=");

	if (cpu_has(CPUID_SSE))
		set_cr4(get_cr4() | CR4_OSFXSR);
	for (unsigned g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
		for (unsigned i = 0; i < groups[g]->n; i++) {
			const struct smc_case *c = &groups[g]->cases[i];

			if (name && same_word(name, "list"))
				print("case %s %u %u\n", c->name, c->rounds, c->writes);
			else if (!name || same_word(name, c->name))
				run_case(c, option_number("rounds=", c->rounds));
		}
	}
	if (name && same_word(name, "list"))
		check("list", 0, 0);
}
