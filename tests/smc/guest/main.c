#include "smc.h"

static const struct smc_group *const groups[] = {&smc_stores, &smc_generated, &smc_mixed, &smc_pages,
						 &smc_devices};

static char command_line[256]; /* our own: the loader's memory is the cases' later */

/* Multiboot 3.3: with bit 2 of the flags the address at offset 16 is the command line's. */
static void keep_command_line(void)
{
	const char *text = (const char *)MEM32(multiboot_info + 16);

	if (!(MEM32(multiboot_info) & 4))
		return;
	for (unsigned i = 0; i + 1 < sizeof(command_line) && text[i]; i++)
		command_line[i] = text[i];
}

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

/* The text behind key on the command line, or NULL. */
static const char *option(const char *key)
{
	for (const char *p = command_line; *p; p++) {
		unsigned n = 0;

		while (key[n] && p[n] == key[n])
			n++;
		if (!key[n])
			return p + n;
	}
	return NULL;
}

static bool same_word(const char *text, const char *word)
{
	while (*word && *text == *word)
		text++, word++;
	return !*word && (!*text || *text == ' ');
}

static uint32_t number(const char *text)
{
	uint32_t n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + (uint32_t)(*text++ - '0');
	return n;
}

void test(void)
{
	keep_command_line();
	const char *name = option("case="), *rounds = option("rounds=");

	if (cpu_has(CPUID_SSE))
		set_cr4(get_cr4() | CR4_OSFXSR);
	for (unsigned g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
		for (unsigned i = 0; i < groups[g]->n; i++) {
			const struct smc_case *c = &groups[g]->cases[i];

			if (name && same_word(name, "list"))
				print("case %s %u %u\n", c->name, c->rounds, c->writes);
			else if (!name || same_word(name, c->name))
				run_case(c, rounds ? number(rounds) : c->rounds);
		}
	}
	if (name && same_word(name, "list"))
		check("list", 0, 0);
}
