/* case.c - cases as text, and states compared. The table of fields serves reading, writing and comparing. */
#include "case.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(name, count)                                                                                   \
	{                                                                                                    \
#name, offsetof(struct vcpu, name), sizeof(((struct vcpu *)0)->name) / (count), count        \
	}

/* Everything architectural but segments and the FPU. size is that of an element. */
static const struct field {
	const char *name;
	size_t offset, size;
	unsigned count;
} fields[] = {
	FIELD(gpr, 8),	 FIELD(eip, 1),		FIELD(flags, 1),	FIELD(df, 1),
	FIELD(iflag, 1), FIELD(sysflags, 1),	FIELD(cpl, 1),		FIELD(cr0, 1),
	FIELD(cr2, 1),	 FIELD(cr3, 1),		FIELD(cr4, 1),		FIELD(dr, 8),
	FIELD(pdpte, 4), FIELD(sysenter_cs, 1), FIELD(sysenter_esp, 1), FIELD(sysenter_eip, 1),
	FIELD(efer, 1),	 FIELD(a20_mask, 1),
};
#define FIELDS (sizeof fields / sizeof fields[0])

static const struct segment_field {
	const char *name;
	size_t offset;
	unsigned count;
} segments[] = {
	{"seg", offsetof(struct vcpu, seg), 6},
	{"ldtr", offsetof(struct vcpu, ldtr), 1},
	{"tr", offsetof(struct vcpu, tr), 1},
};
#define SEGMENTS (sizeof segments / sizeof segments[0])

static const struct {
	const char *name;
	size_t offset;
} tables[] = {{"gdtr", offsetof(struct vcpu, gdtr)}, {"idtr", offsetof(struct vcpu, idtr)}};
#define TABLES (sizeof tables / sizeof tables[0])

static uint64_t get(const struct vcpu *c, const struct field *f, unsigned i)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)c + f->offset + i * f->size, f->size);
	return v;
}

static void put(struct vcpu *c, const struct field *f, unsigned i, uint64_t v)
{
	memcpy((char *)c + f->offset + i * f->size, &v, f->size);
}

void case_init(struct fuzz_case *k)
{
	memset(k, 0, sizeof *k);
	cpu_reset(&k->cpu);
	k->cpu.eip = 0;
}

void case_copy_cpu(struct vcpu *to, const struct vcpu *from)
{
	for (unsigned f = 0; f < FIELDS; f++)
		memcpy((char *)to + fields[f].offset, (const char *)from + fields[f].offset,
		       fields[f].size * fields[f].count);
	memcpy(to->seg, from->seg, sizeof to->seg);
	to->ldtr = from->ldtr;
	to->tr = from->tr;
	to->gdtr = from->gdtr;
	to->idtr = from->idtr;
	to->fpu = from->fpu;
}

/* ------------------------------------------------------------------ comparing */

static bool seg_equal(const struct seg *a, const struct seg *b)
{
	return a->sel == b->sel && a->attr == b->attr && a->base == b->base && a->limit == b->limit;
}

/* FXSAVE image without opcode and pointers of the last x87 instruction, and without what 32-bit code cannot
 * see (docs/limits.md). */
static bool fpu_shows(unsigned at)
{
	return at < 5 || (at >= 24 && at < 28) || (at >= 32 && at < 160 && at % 16 < 10) ||
	       (at >= 160 && at < 288);
}

void case_compare_cpu(const struct vcpu *a, const struct vcpu *b, char *out, size_t len)
{
	*out = 0;
	for (unsigned f = 0; f < FIELDS; f++) {
		for (unsigned i = 0; i < fields[f].count; i++) {
			uint64_t x = get(a, &fields[f], i), y = get(b, &fields[f], i);
			if (x != y) {
				snprintf(out, len, "%s[%u] %" PRIx64 " against %" PRIx64, fields[f].name, i,
					 x, y);
				return;
			}
		}
	}
	for (unsigned s = 0; s < SEGMENTS; s++) {
		const struct seg *x = (const void *)((const char *)a + segments[s].offset);
		const struct seg *y = (const void *)((const char *)b + segments[s].offset);
		for (unsigned i = 0; i < segments[s].count; i++) {
			if (!seg_equal(&x[i], &y[i])) {
				snprintf(out, len, "%s[%u] %04x:%08x+%08x,%04x against %04x:%08x+%08x,%04x",
					 segments[s].name, i, x[i].sel, x[i].base, x[i].limit, x[i].attr,
					 y[i].sel, y[i].base, y[i].limit, y[i].attr);
				return;
			}
		}
	}
	if (a->gdtr.base != b->gdtr.base || a->gdtr.limit != b->gdtr.limit || a->idtr.base != b->idtr.base ||
	    a->idtr.limit != b->idtr.limit)
		snprintf(out, len, "gdtr or idtr");
	for (unsigned at = 0; !*out && at < 512; at++)
		if (fpu_shows(at) && a->fpu.fxsave[at] != b->fpu.fxsave[at])
			snprintf(out, len, "byte %u of the FXSAVE image: %02x against %02x", at,
				 a->fpu.fxsave[at], b->fpu.fxsave[at]);
}

/* ------------------------------------------------------------------ writing */

static void write_comment(FILE *f, const char *text)
{
	while (text && *text) {
		const size_t n = strcspn(text, "\n");
		fprintf(f, "# %.*s\n", (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static void write_bytes(FILE *f, const char *word, uint32_t at, const uint8_t *p, unsigned n)
{
	fprintf(f, "%s %08x ", word, at);
	for (unsigned i = 0; i < n; i++)
		fprintf(f, "%02x", p[i]);
	fputc('\n', f);
}

static void write_cpu(FILE *f, const struct vcpu *c)
{
	static struct fuzz_case reset;

	case_init(&reset);
	for (unsigned n = 0; n < FIELDS; n++)
		for (unsigned i = 0; i < fields[n].count; i++)
			if (get(c, &fields[n], i) != get(&reset.cpu, &fields[n], i))
				fprintf(f, "%s %u %0*" PRIx64 "\n", fields[n].name, i,
					(int)fields[n].size * 2, get(c, &fields[n], i));
	for (unsigned n = 0; n < SEGMENTS; n++) {
		const struct seg *s = (const void *)((const char *)c + segments[n].offset);
		for (unsigned i = 0; i < segments[n].count; i++)
			fprintf(f, "%s %u %04x %04x %08x %08x\n", segments[n].name, i, s[i].sel, s[i].attr,
				s[i].base, s[i].limit);
	}
	for (unsigned n = 0; n < TABLES; n++) {
		const struct table_reg *t = (const void *)((const char *)c + tables[n].offset);
		fprintf(f, "%s %08x %04x\n", tables[n].name, t->base, t->limit);
	}
	for (unsigned at = 0; at < 512; at += 16)
		if (memcmp(c->fpu.fxsave + at, reset.cpu.fpu.fxsave + at, 16))
			write_bytes(f, "fpu", at, c->fpu.fxsave + at, 16);
}

static bool zero(const uint8_t *p, unsigned n)
{
	while (n--)
		if (*p++)
			return false;
	return true;
}

int case_write(const struct fuzz_case *k, const char *path, const char *comment)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		return -1;
	}
	write_comment(f, comment);
	write_cpu(f, &k->cpu);
	for (uint32_t at = 0; at < CASE_RAM; at += 32)
		if (!zero(k->ram + at, 32))
			write_bytes(f, "mem", at, k->ram + at, 32);
	return fclose(f) ? -1 : 0;
}

/* ------------------------------------------------------------------ reading */

static bool read_bytes(uint8_t *to, size_t room, unsigned at, const char *hex)
{
	unsigned v;

	for (; strspn(hex, "0123456789abcdef") >= 2; hex += 2) {
		if (at >= room || sscanf(hex, "%2x", &v) != 1)
			return false;
		to[at++] = (uint8_t)v;
	}
	return *hex == '\n' || *hex == 0;
}

static bool read_segment(struct vcpu *c, const char *word, const char *rest)
{
	unsigned i, sel, attr;
	struct seg s;

	for (unsigned n = 0; n < SEGMENTS; n++) {
		if (strcmp(word, segments[n].name))
			continue;
		if (sscanf(rest, "%u %x %x %x %x", &i, &sel, &attr, &s.base, &s.limit) != 5 ||
		    i >= segments[n].count)
			return false;
		s.sel = (uint16_t)sel;
		s.attr = (uint16_t)attr;
		memcpy((char *)c + segments[n].offset + i * sizeof s, &s, sizeof s);
		return true;
	}
	return false;
}

static bool read_table(struct vcpu *c, const char *word, const char *rest)
{
	unsigned base, limit;

	for (unsigned n = 0; n < TABLES; n++) {
		if (strcmp(word, tables[n].name) || sscanf(rest, "%x %x", &base, &limit) != 2)
			continue;
		struct table_reg t = {.base = base, .limit = (uint16_t)limit};
		memcpy((char *)c + tables[n].offset, &t, sizeof t);
		return true;
	}
	return false;
}

static bool read_field(struct vcpu *c, const char *word, const char *rest)
{
	unsigned i;
	uint64_t v;

	for (unsigned n = 0; n < FIELDS; n++) {
		if (strcmp(word, fields[n].name))
			continue;
		if (sscanf(rest, "%u %" SCNx64, &i, &v) != 2 || i >= fields[n].count)
			return false;
		put(c, &fields[n], i, v);
		return true;
	}
	return false;
}

static bool read_line(struct fuzz_case *k, const char *line)
{
	char word[16];
	unsigned at;
	int used = 0;

	if (*line == '#' || *line == '\n')
		return true;
	if (sscanf(line, "%15s%n", word, &used) != 1)
		return false;
	const char *rest = line + used;
	if (!strcmp(word, "mem") || !strcmp(word, "fpu")) {
		if (sscanf(rest, " %x %n", &at, &used) != 1)
			return false;
		return *word == 'm' ? read_bytes(k->ram, CASE_RAM, at, rest + used)
				    : read_bytes(k->cpu.fpu.fxsave, 512, at, rest + used);
	}
	return read_field(&k->cpu, word, rest) || read_segment(&k->cpu, word, rest) ||
	       read_table(&k->cpu, word, rest);
}

int case_read(struct fuzz_case *k, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[1024];
	unsigned n = 0;
	bool ok = f;

	if (!f)
		perror(path);
	case_init(k);
	while (ok && fgets(line, sizeof line, f)) {
		n++;
		ok = read_line(k, line);
		if (!ok)
			fprintf(stderr, "%s:%u: cannot read this\n", path, n);
	}
	if (f)
		fclose(f);
	return ok ? 0 : -1;
}
