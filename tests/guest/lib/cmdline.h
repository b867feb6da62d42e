/* What the machine's command line says: words KEY=VALUE. */
#ifndef CMDLINE_H
#define CMDLINE_H

#include <stdbool.h>
#include <stdint.h>

/* The value of key, which is given with its "=", up to the next space or the end; of several the last. NULL:
 * not there. The first call keeps a copy of the line, because the loader's memory may be used for something
 * else. */
const char *option(const char *key);
/* The same as a number; `otherwise` if it is not there. */
uint32_t option_number(const char *key, uint32_t otherwise);
/* Whether name begins as one of the parts of list does, a value of parts with commas between them. */
bool option_chooses(const char *list, const char *name);

#endif
