// How often code was not that of the file it was just read from: each block of FILE returns its number, and all of them
// are read, past the page cache, into one page, and called there.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 4096 };

int main(int argc, char **argv)
{
    int fd = open(argv[1], O_RDONLY | O_DIRECT), blocks = atoi(argv[2]), stale = 0;
    char *page = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc != 3 || fd < 0 || page == MAP_FAILED)
        return 1;
    for (int i = 0; i < blocks; i++) {
        if (pread(fd, page, BLOCK, (off_t)i * BLOCK) != BLOCK)
            return 1;
        stale += ((int (*)(void))page)() != i;
    }
    printf("%d\n", stale);
    return 0;
}
