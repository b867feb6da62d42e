#include "cmdline.h"

#include "guest.h"

static char line[2048];

/* Multiboot 3.3: with bit 2 of the flags the address at offset 16 is the command line's. */
static void keep_line(void)
{
	static bool kept;
	const char *text = (const char *)MEM32(multiboot_info + 16);

	if (kept)
		return;
	kept = true;
	if (!(MEM32(multiboot_info) & 4))
		return;
	for (unsigned i = 0; i + 1 < sizeof(line) && text[i]; i++)
		line[i] = text[i];
}

/* with ends at a comma, a space or its end. */
static bool begins(const char *text, const char *with)
{
	while (*with && *with != ',' && *with != ' ')
		if (*text++ != *with++)
			return false;
	return true;
}

const char *option(const char *key)
{
	const char *value = NULL;

	keep_line();
	for (const char *p = line; *p; p++) {
		if (!begins(p, key))
			continue;
		value = p;
		for (const char *k = key; *k; k++)
			value++;
	}
	return value;
}

uint32_t option_number(const char *key, uint32_t otherwise)
{
	const char *text = option(key);
	uint32_t value = 0;

	if (!text)
		return otherwise;
	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (uint32_t)(*text - '0');
	return value;
}

bool option_chooses(const char *list, const char *name)
{
	for (const char *p = list; *p && *p != ' '; p++)
		if ((p == list || p[-1] == ',') && begins(name, p))
			return true;
	return false;
}
