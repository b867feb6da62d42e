/* leak.c - loses some memory, for LeakSanitizer to find. */
#include <stdio.h>
#include <stdlib.h>

static char *volatile kept;

int main(void)
{
	for (int i = 0; i < 10; i++)
		kept = malloc(100);
	printf("%s\n", kept ? "lost memory" : "no memory to lose");
	free(kept);
	return 0;
}
