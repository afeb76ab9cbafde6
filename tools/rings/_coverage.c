/* Edge coverage for tools.rings.fuzz: what -fsanitize-coverage=trace-pc calls, and which edges are new. */

#include <stdint.h>
#include <string.h>

#define EDGES 65536

static uint8_t counts[EDGES]; /* of the run under way */
static uint8_t known[EDGES];  /* a bit for each magnitude that was seen */
static uintptr_t last;

void __sanitizer_cov_trace_pc(void)
{
	uintptr_t pc = (uintptr_t)__builtin_return_address(0);
	uint32_t edge = (uint32_t)((pc >> 1) ^ last * 31) % EDGES;

	if (counts[edge] != 255)
		counts[edge]++;
	last = pc >> 1;
}

void begin(void)
{
	memset(counts, 0, sizeof(counts));
	last = 0;
}

/* Ends a run: how many edges, or magnitudes of their counts, no run before has shown. */
int end(void)
{
	int found = 0;

	for (int i = 0; i < EDGES; i++) {
		uint8_t n = counts[i], size;

		if (!n)
			continue;
		size = n == 1 ? 1 : n == 2 ? 2 : n < 4 ? 4 : n < 8 ? 8 : n < 16 ? 16 : n < 32 ? 32 : n < 128 ? 64 : 128;
		if (size & ~known[i]) {
			known[i] |= size;
			found++;
		}
	}
	return found;
}

void forget(void)
{
	memset(known, 0, sizeof(known));
}

int edges(void)
{
	int n = 0;

	for (int i = 0; i < EDGES; i++)
		n += known[i] != 0;
	return n;
}
