/* bt_stats.c - the rows of --stats that the translator knows. */
#include "vmm/bt.h"

#include <stdlib.h>
#include <string.h>

#define HOT_SHOWN 32u

void bt_stat_callout(struct bt *bt, uint32_t eip)
{
	struct hot_eip *t = bt->hot_eips;
	uint32_t h = eip * 0x9e3779b1u >> 19;

	for (unsigned i = 0; i < 16; i++, h = (h + 1) & (HOT_EIPS - 1)) {
		if (!t[h].eip)
			t[h].eip = eip;
		if (t[h].eip == eip) {
			t[h].n++;
			return;
		}
	}
}

static int by_count(const void *a, const void *b)
{
	const struct hot_eip *x = a, *y = b;

	return x->n < y->n ? 1 : -(x->n > y->n);
}

/* The instructions that called out most, by address and, where known, symbol. */
static unsigned hot_rows(struct bt *bt, struct stat_row *rows, unsigned max)
{
	static char names[HOT_SHOWN][64];
	struct hot_eip *t = malloc(HOT_EIPS * sizeof *t);
	unsigned n = 0;

	if (!t)
		return 0;
	memcpy(t, bt->hot_eips, HOT_EIPS * sizeof *t);
	qsort(t, HOT_EIPS, sizeof *t, by_count);
	for (; n < HOT_SHOWN && n < max && t[n].n; n++) {
		uint32_t off;
		const char *sym = symbols_find(t[n].eip, &off);
		if (sym)
			snprintf(names[n], sizeof names[n], "%08x %.32s+%#x", t[n].eip, sym, off);
		else
			snprintf(names[n], sizeof names[n], "%08x", t[n].eip);
		rows[n] = (struct stat_row){"callouts by instruction", names[n], t[n].n};
	}
	free(t);
	return n;
}

static unsigned verify_rows(const struct verify_stats *s, struct stat_row *rows, unsigned max)
{
	const struct stat_row all[] = {
		{"verify", "blocks executed", s->entries},
		{"verify", "blocks compared", s->blocks},
		{"verify", "blocks not compared to their end", s->passed},
		{"verify", "page faults that stale mappings excuse", s->stale},
		{"verify", "instructions compared", s->insns},
		{"verify", "callouts compared", s->callouts},
		{"verify", "callouts not compared", s->callouts_only},
		{"verify", "faults compared", s->faults},
	};
	const unsigned n = sizeof all / sizeof all[0];

	for (unsigned i = 0; i < n && i < max; i++)
		rows[i] = all[i];
	return n < max ? n : max;
}

unsigned bt_stat_rows(struct bt *bt, struct stat_row *rows, unsigned max)
{
	const struct cache_stats *k = &bt->k.stats;
	const struct bt_stats *s = &bt->st;
	uint64_t calls = 0;

	for (unsigned i = 0; i < CO_COUNT; i++)
		calls += s->callouts[i];
	const struct stat_row all[] = {
		{"cache", "blocks translated", k->blocks_made},
		{"cache", "blocks now", k->blocks_now},
		{"cache", "blocks dropped", k->blocks_dropped},
		{"cache", "guest instructions translated", k->guest_insns},
		{"cache", "guest bytes translated", k->guest_bytes},
		{"cache", "IDENT instructions", k->ident_insns},
		{"cache", "host bytes, hot", k->host_bytes},
		{"cache", "host bytes, cold", k->cold_bytes},
		{"cache", "chains made", k->chains},
		{"cache", "chains cut", k->unchains},
		{"cache", "table slots filled", k->table_fills},
		{"cache", "table slots remembered", k->slots_recalled},
		{"cache", "spaces made", k->spaces_made},
		{"cache", "table stretches mapped", k->stretches_mapped},
		{"cache", "flushes", k->flushes},
		{"run", "entries", s->enters},
		{"run", "exits: unchained", s->exits_direct},
		{"run", "exits: table miss", s->exits_miss},
		{"run", "exits: kick", s->exits_kick},
		{"run", "exits: fault", s->exits_fault},
		{"run", "exits: callout", s->exits_callout},
		{"run", "callouts", calls},
		{"run", "callouts: interpreter, full", s->callouts[CO_INTERP]},
		{"run", "callouts: interpreter, device", s->callouts[CO_DEVICE]},
		{"run", "callouts: interpreter, light", s->callouts[CO_LIGHT]},
		{"run", "callouts: interpreter, access", s->callouts[CO_ACCESS]},
		{"run", "callouts: mov to cr", s->callouts[CO_MOV_TO_CR]},
		{"run", "callouts: fxsave, fxrstor", s->callouts[CO_FXSAVE] + s->callouts[CO_FXRSTOR]},
		{"run", "callouts: segment loads", s->callouts[CO_SEG_LOAD]},
		{"run", "callouts: int, iret", s->callouts[CO_INT] + s->callouts[CO_IRET]},
		{"run", "callouts: sysenter, sysexit", s->callouts[CO_SYSENTER] + s->callouts[CO_SYSEXIT]},
		{"run", "callouts: probe", s->callouts[CO_PROBE]},
		{"run", "callouts: probe, full", s->callouts[CO_PROBE_FPU]},
		{"run", "instructions from the cache", bt->c->hot.insns},
		{"run", "interpreted instructions", s->interp_insns},
		{"run", "interpreter bursts", s->interp_bursts},
		{"faults", "hidden", s->faults_hidden},
		{"faults", "true", s->faults_true},
		{"faults", "trace hits", s->faults_traced},
		{"faults", "MMIO", s->faults_mmio},
		{"faults", "user/supervisor sites", s->faults_user},
		{"faults", "window edge", s->faults_edge},
		{"faults", "arithmetic", s->faults_arith},
		{"faults", "adaptations", s->adaptations},
		{"faults", "sites turned back", s->turned_back},
		{"faults", "probes turned back", s->probes_turned_back},
		{"faults", "hot code laid anew", s->laid_anew},
		{"code", "writes to code pages", s->code_writes},
		{"code", "blocks dropped by them", s->blocks_hit},
		{"time", "TSC cycles, run", __builtin_ia32_rdtsc() - s->tsc_start},
		{"time", "TSC cycles, translator", s->tsc_translate},
		{"time", "TSC cycles, flushes", s->tsc_flush},
		{"time", "TSC cycles, fault handlers", s->tsc_fault},
		{"time", "TSC cycles, interpreter", s->tsc_interp},
		{"time", "TSC cycles, halted", s->tsc_sleep},
	};
	unsigned n = sizeof all / sizeof all[0];
	for (unsigned i = 0; i < n && i < max; i++)
		rows[i] = all[i];
	if (bt->verify)
		n += verify_rows(verify_get_stats(bt->verify), rows + n, n < max ? max - n : 0);
	for (unsigned i = 0; i < 64; i++)
		if (s->callout_class[i] && n < max)
			rows[n++] = (struct stat_row){"callouts by kind", insn_class_name(i),
						      s->callout_class[i]};
	if (bt->hot_eips && n < max)
		n += hot_rows(bt, rows + n, max - n);
	return n < max ? n : max;
}
