/* case.c - a case: its memory, its addresses, and its one-line form for --replay.
 *
 * The line is a list of KEY=VALUE, all numbers hexadecimal. What is left out is as case_init makes it:
 *
 *	slot=3 image=11 code=0:89d8 at=123 gpr=0,1,2,3,20035000,5,6,7 fl=202 sel=2b,23,2b,2b,63,6b
 *	tls0=base,limit,attr reps=2 mem=4010:deadbeef fx=0:7f03 insn=0,2
 */
#include <stdlib.h>
#include <string.h>

#include "silicon.h"

static uint8_t images[IMAGES][DATA_BYTES];

/* Of several kinds: random, small numbers, vectors and x87 numbers, addresses near the data. */
void images_init(void)
{
	uint8_t fx[512];

	rnd_seed(1);
	for (unsigned n = 1; n < IMAGES; n++)
		for (unsigned at = 0; at < DATA_BYTES;) {
			unsigned left = DATA_BYTES - at, len = 4;
			uint32_t v = n % 4 == 1 ? rnd() : random_word();

			if (n % 4 == 3 && left >= 256) {
				random_fx(fx);
				len = 256;
				memcpy(images[n] + at, fx + 32, len);
			} else {
				memcpy(images[n] + at, &v, 4);
			}
			at += len;
		}
}

void case_data(const struct testcase *t, uint8_t out[DATA_BYTES])
{
	memcpy(out, images[t->image % IMAGES], DATA_BYTES);
	for (unsigned k = 0; k < t->npatch; k++)
		memcpy(out + t->patch[k].off, t->pool + t->patch[k].at, t->patch[k].len);
}

void case_poke(struct testcase *t, uint32_t linear, const void *bytes, unsigned len)
{
	uint32_t off = linear - (slot_at(t) + SLOT_DATA);
	const uint8_t *from = bytes;

	if (off >= DATA_BYTES) {
		if (0u - off >= len)
			return;
		from += 0u - off;
		len -= 0u - off;
		off = 0;
	}
	if (len > DATA_BYTES - off)
		len = DATA_BYTES - off;
	if (t->npatch == CASE_PATCHES || t->pooled + len > CASE_POOL)
		return;
	t->patch[t->npatch].off = (uint16_t)off;
	t->patch[t->npatch].len = (uint16_t)len;
	t->patch[t->npatch++].at = (uint16_t)t->pooled;
	memcpy(t->pool + t->pooled, from, len);
	t->pooled += len;
}

uint32_t case_base(const struct testcase *t, unsigned seg)
{
	unsigned n = (t->c.sel[seg] >> 3) - TLS_FIRST;

	return n < 3 && (t->c.sel[seg] & 4) == 0 ? t->c.tls[n].base : 0;
}

uint32_t case_address(const struct testcase *t, const struct insn *i)
{
	uint32_t ea = (uint32_t)i->disp;

	if (i->base >= 0)
		ea += t->c.gpr[i->base];
	if (i->index >= 0)
		ea += t->c.gpr[i->index] * i->scale;
	if (i->adsize == 2)
		ea &= 0xffff;
	return case_base(t, i->seg) + ea;
}

void case_init(struct testcase *t, unsigned slot)
{
	static const uint32_t sel[6] = {USER_DATA, USER_CODE, USER_DATA, USER_DATA, TLS_SEL(0), TLS_SEL(1)};

	memset(t, 0, sizeof *t);
	t->slot = t->c.slot = slot;
	t->c.eflags = FL_1 | FL_IF;
	t->c.reps = 1;
	t->c.fx[0] = 0x7f;
	t->c.fx[1] = 0x03;
	t->c.fx[25] = 0x1f;
	t->c.fx[24] = 0x80;
	memcpy(t->c.sel, sel, sizeof sel);
	for (unsigned n = 0; n < 3; n++)
		t->c.tls[n] = (struct silicon_tls){slot_at(t) + SLOT_DATA + 0x1000 * n, 0xfffff,
						   TLS_PRESENT | TLS_WRITABLE | TLS_PAGES};
	for (unsigned r = 0; r < 8; r++)
		t->c.gpr[r] = r;
	t->c.gpr[ESP] = slot_at(t) + SLOT_DATA + 0x1000;
	t->c.eip = slot_at(t) + SLOT_CODE;
}

/* ------------------------------------------------------------------ text */

static void print_hex(FILE *out, const uint8_t *p, unsigned len)
{
	for (unsigned k = 0; k < len; k++)
		fprintf(out, "%02x", p[k]);
}

static void print_list(FILE *out, const char *key, const uint32_t *v, unsigned n)
{
	fprintf(out, " %s=", key);
	for (unsigned k = 0; k < n; k++)
		fprintf(out, "%s%x", k ? "," : "", v[k]);
}

/* The runs of bytes in which the FXSAVE images differ. */
static void print_fx(FILE *out, const uint8_t *fx, const uint8_t *usual)
{
	for (unsigned k = 0; k < 288; k++) {
		unsigned len = 0;

		while (k + len < 288 && fx[k + len] != usual[k + len])
			len++;
		if (!len)
			continue;
		fprintf(out, " fx=%x:", k);
		print_hex(out, fx + k, len);
		k += len;
	}
}

void case_print(FILE *out, const struct testcase *t)
{
	struct testcase usual;
	const struct silicon_case *c = &t->c, *u = &usual.c;
	char key[8] = "tls0";

	case_init(&usual, t->slot);
	fprintf(out, "slot=%x image=%x code=%x:", t->slot, t->image, c->code_at);
	print_hex(out, c->code, c->code_len);
	fprintf(out, " at=%x", c->eip - (slot_at(t) + SLOT_CODE));
	print_list(out, "gpr", c->gpr, 8);
	fprintf(out, " fl=%x", c->eflags);
	if (memcmp(c->sel, u->sel, sizeof c->sel))
		print_list(out, "sel", c->sel, 6);
	for (unsigned n = 0; n < 3; n++, key[3]++)
		if (memcmp(&c->tls[n], &u->tls[n], sizeof c->tls[n]))
			print_list(out, key, &c->tls[n].base, 3);
	if (c->reps != 1)
		fprintf(out, " reps=%x", c->reps);
	for (unsigned k = 0; k < t->npatch; k++) {
		fprintf(out, " mem=%x:", SLOT_DATA + t->patch[k].off);
		print_hex(out, t->pool + t->patch[k].at, t->patch[k].len);
	}
	print_fx(out, c->fx, u->fx);
	if (t->ninsn > 1 && !t->branches)
		for (unsigned k = 0; k < t->ninsn; k++)
			fprintf(out, "%s%x,%x", k ? "," : " insn=", t->insn[k].at, t->insn[k].len);
}

static unsigned parse_list(const char *p, uint32_t *v, unsigned max)
{
	unsigned n = 0;
	char *end;

	while (n < max) {
		v[n] = (uint32_t)strtoul(p, &end, 16);
		if (end == p)
			break;
		n++;
		if (*end != ',')
			break;
		p = end + 1;
	}
	return n;
}

/* OFFSET:BYTES */
static int parse_bytes(const char *p, uint32_t *off, uint8_t *bytes, unsigned max)
{
	char *end;
	unsigned n = 0, v;

	*off = (uint32_t)strtoul(p, &end, 16);
	if (*end != ':')
		return -1;
	for (p = end + 1; n < max && sscanf(p, "%2x", &v) == 1 && p[0] != ' ' && p[1] && p[1] != ' '; p += 2)
		bytes[n++] = (uint8_t)v;
	return (int)n;
}

static int parse_field(struct testcase *t, const char *key, const char *value)
{
	struct silicon_case *c = &t->c;
	uint8_t bytes[512];
	uint32_t v[2 * CASE_INSNS] = {0}, off;
	unsigned n = parse_list(value, v, 2 * CASE_INSNS);
	int len;

	if (!strcmp(key, "image")) {
		t->image = v[0] % IMAGES;
	} else if (!strcmp(key, "at")) {
		c->eip = slot_at(t) + SLOT_CODE + v[0];
	} else if (!strcmp(key, "gpr") && n == 8) {
		memcpy(c->gpr, v, 32);
	} else if (!strcmp(key, "fl")) {
		c->eflags = v[0];
	} else if (!strcmp(key, "sel") && n == 6) {
		memcpy(c->sel, v, 24);
	} else if (!strncmp(key, "tls", 3) && key[3] >= '0' && key[3] <= '2' && n == 3) {
		memcpy(&c->tls[key[3] - '0'], v, 12);
	} else if (!strcmp(key, "reps")) {
		c->reps = v[0];
	} else if (!strcmp(key, "insn")) {
		for (t->ninsn = 0; t->ninsn < n / 2; t->ninsn++) {
			t->insn[t->ninsn].at = (uint16_t)v[2 * t->ninsn];
			t->insn[t->ninsn].len = (uint8_t)v[2 * t->ninsn + 1];
			t->insn[t->ninsn].form = FORM_NONE;
		}
	} else if (!strcmp(key, "code") && (len = parse_bytes(value, &off, bytes, CODE_MAX)) >= 0 &&
		   off + (uint32_t)len <= CODE_BYTES) {
		c->code_at = off;
		c->code_len = (uint32_t)len;
		memcpy(c->code, bytes, (size_t)len);
	} else if (!strcmp(key, "mem") && (len = parse_bytes(value, &off, bytes, sizeof bytes)) >= 0) {
		case_poke(t, slot_at(t) + off, bytes, (unsigned)len);
	} else if (!strcmp(key, "fx") && (len = parse_bytes(value, &off, bytes, sizeof bytes)) >= 0 &&
		   off + (uint32_t)len <= 512) {
		memcpy(c->fx + off, bytes, (size_t)len);
	} else {
		return -1;
	}
	return 0;
}

int case_parse(struct testcase *t, const char *text)
{
	const char *slot = strstr(text, "slot=");
	char key[16], *value = malloc(strlen(text) + 1);
	int used, rc = 0;

	case_init(t, slot ? (unsigned)strtoul(slot + 5, NULL, 16) % SLOTS : 0);
	while (!rc && value && sscanf(text, " %15[a-z0-9]=%s%n", key, value, &used) == 2) {
		rc = strcmp(key, "slot") ? parse_field(t, key, value) : 0;
		if (rc)
			fprintf(stderr, "silicon: cannot read %s=%s\n", key, value);
		text += used;
	}
	t->branches = t->ninsn == 0;
	free(value);
	return rc;
}
