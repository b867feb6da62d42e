/* bt_signal.c - signals that arrive while translated code runs, and the kick that makes it leave.
 *
 * A kick (SIGUSR1) must make translated code come back at the next block boundary, with no cost to code that
 * is not kicked. Every way out of the block that the PC is in is cut: its chained exits are unlinked, and r14
 * is turned to an empty table (the way back from the miss handler looks at hot.kick). Code in entry.S that is
 * on its way back into translated code looks at hot.kick and is restartable (see there).
 *
 * Faults in translated code: the registers are stored into the vcpu and the context is edited so that
 * sigreturn arrives at bt_go_fault on the VMM's own stack, with the guest's FPU state intact in the host
 * unit.
 */
#include "vmm/bt.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static struct bt *the_bt; /* the one vCPU of this process */

#define SIGSTACK_BYTES 65536

static bool within(uint64_t pc, const char *start, const char *end)
{
	return pc >= (uint64_t)(uintptr_t)start && pc < (uint64_t)(uintptr_t)end;
}

static uint32_t arith_flags(const greg_t *g)
{
	return (uint32_t)g[REG_EFL] & FL_ARITH;
}

/* Stores the guest's registers and leads the context out through bt_go_fault. */
static void leave_with_fault(struct vcpu *c, greg_t *g, uint64_t trap, uint64_t addr)
{
	static const uint8_t reg[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
				       REG_R12, REG_RBP, REG_RSI, REG_RDI};

	for (unsigned r = 0; r < 8; r++)
		c->gpr[r] = (uint32_t)g[reg[r]];
	c->flags = arith_flags(g);
	c->hot.ret_sp = (uint64_t)g[REG_RSP];
	c->hot.fault_pc = (uint64_t)g[REG_RIP];
	c->hot.fault_addr = addr;
	c->hot.fault_err = (uint64_t)g[REG_ERR];
	c->hot.fault_trap = trap;
	g[REG_RIP] = (greg_t)(uintptr_t)bt_go_fault;
	g[REG_RSP] = (greg_t)c->hot.c_sp;
	g[REG_R15] = (greg_t)(uintptr_t)c;
	g[REG_EFL] &= ~(greg_t)(FL_DF | FL_AC);
}

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	struct bt *bt = the_bt;
	uint64_t pc = (uint64_t)g[REG_RIP], addr = (uint64_t)(uintptr_t)si->si_addr;

	if (si->si_code > 0 && cache_contains(&bt->k, pc)) {
		if (sig == SIGSEGV &&
		    cache_stack_guard(&bt->k, addr)) { /* begin anew, call or return again */
			g[REG_RSP] = (greg_t)cache_stack_middle(&bt->k);
			return;
		}
		leave_with_fault(bt->c, g, sig == SIGBUS ? 14 : (uint64_t)g[REG_TRAPNO], addr);
		return;
	}
	/* Translated code has jumped to what a branch table holds where nothing was put into it yet. */
	if (sig == SIGSEGV && pc == 0 && cache_stack_contains(&bt->k, (uint64_t)g[REG_RSP])) {
		g[REG_RIP] = cache_miss(&bt->k);
		return;
	}
	machine_run_fatal_hook();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void kick_block(struct bt *bt, greg_t *g)
{
	struct vcpu *c = bt->c;
	uint64_t pc = (uint64_t)g[REG_RIP];
	struct block *b = cache_find_pc(&bt->k, pc);

	bt->sampled = b;
	bt->sampled_host = (uint32_t)(pc - (uint64_t)(uintptr_t)bt->k.rx) >> PAGE_SHIFT;
	if (b) {
		const struct side_entry *s = &b->side[cache_find_insn(&bt->k, b, pc)];
		if (s->flags & SIDE_REP &&
		    pc == (uint64_t)(uintptr_t)(bt->k.rx + b->host + s->host + s->rep)) {
			leave_with_fault(c, g, FAULT_KICK, 0);
			return;
		}
		cache_unlink_exits(&bt->k, b);
	}
	g[REG_R14] = (greg_t)(uintptr_t)bt->k.empty_table;
	uint64_t r9 = (uint64_t)g[REG_R9];
	cache_table_jump_undo(&bt->k, pc, &r9, (uint64_t *)(uintptr_t)g[REG_RSP]);
	g[REG_R9] = (greg_t)r9;
}

static void on_kick(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	struct bt *bt = the_bt;
	struct vcpu *c = bt->c;
	uint64_t pc = (uint64_t)g[REG_RIP];
	int saved = errno;

	(void)sig;
	clock_kicked(bt->m, si);
	const uint32_t rq = atomic_load(&c->request);
	if (!(rq & ~REQ_IRQ) && !c->iflag)
		return; /* only an interrupt, and they are off: sti, popf and iret look at the request */
	c->hot.kick = 1;
	if (cache_contains(&bt->k, pc))
		kick_block(bt, g);
	else if (within(pc, bt_tail_start, bt_tail_end))
		g[REG_RIP] = (greg_t)(uintptr_t)bt_tail_start;
	else if (within(pc, bt_tail_on_start, bt_tail_on_end))
		g[REG_RIP] = (greg_t)(uintptr_t)bt_tail_on_start;
	else if (within(pc, bt_tail_jump_start, bt_tail_jump_end))
		g[REG_RIP] = (greg_t)(uintptr_t)bt_tail_jump_start;
	else if (within(pc, bt_tail_seg_start, bt_tail_seg_end))
		g[REG_RIP] = (greg_t)(uintptr_t)bt_tail_seg_start;
	else if (within(pc, bt_tail_switch_start, bt_tail_switch_end))
		g[REG_RIP] = (greg_t)(uintptr_t)bt_tail_switch_start;
	errno = saved;
}

void bt_signals_install(struct bt *bt)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t ss = {.ss_size = SIGSTACK_BYTES};

	the_bt = bt;
	ss.ss_sp = mmap(NULL, SIGSTACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL) < 0)
		abort();
	sigfillset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGFPE, &sa, NULL);
	sigaction(SIGILL, &sa, NULL);
	sa.sa_sigaction = on_kick;
	sa.sa_flags |= SA_RESTART;
	sigaction(VCPU_KICK_SIG, &sa, NULL);
}
