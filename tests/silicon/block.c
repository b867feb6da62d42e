#include "silicon.h"
void make_block(struct testcase *t)
{
	make_single(t, below(form_count));
}
