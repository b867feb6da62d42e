/* The guest's own runtime is all that the cases need (tests/guest/lib). */
#include "paging.h"
