/* bt_stats.c - the rows of --stats that the translator knows. */
#include "vmm/bt.h"

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
		{"cache", "spaces made", k->spaces_made},
		{"cache", "flushes", k->flushes},
		{"run", "entries", s->enters},
		{"run", "exits: unchained", s->exits_direct},
		{"run", "exits: table miss", s->exits_miss},
		{"run", "exits: kick", s->exits_kick},
		{"run", "exits: fault", s->exits_fault},
		{"run", "exits: callout", s->exits_callout},
		{"run", "callouts", calls},
		{"run", "callouts: interpreter, full", s->callouts[CO_INTERP]},
		{"run", "callouts: interpreter, light", s->callouts[CO_LIGHT]},
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
		{"code", "writes to code pages", s->code_writes},
		{"code", "blocks dropped by them", s->blocks_hit},
		{"time", "TSC cycles, run", __builtin_ia32_rdtsc() - s->tsc_start},
		{"time", "TSC cycles, translator", s->tsc_translate},
		{"time", "TSC cycles, fault handlers", s->tsc_fault},
		{"time", "TSC cycles, interpreter", s->tsc_interp},
		{"time", "TSC cycles, halted", s->tsc_sleep},
	};
	unsigned n = sizeof all / sizeof all[0];
	for (unsigned i = 0; i < n && i < max; i++)
		rows[i] = all[i];
	for (unsigned i = 0; i < 64; i++)
		if (s->callout_class[i] && n < max)
			rows[n++] = (struct stat_row){"callouts by kind", insn_class_name(i),
						      s->callout_class[i]};
	return n < max ? n : max;
}
