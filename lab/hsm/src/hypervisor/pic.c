/* Two 8259A interrupt controllers, cascaded at input 2 (Intel 8259A datasheet); the hypervisor has them, not the client. */
#include "rig.h"

#include <string.h>

#define ICW1 0x10
#define ICW1_ICW4 0x01
#define ICW4_AUTO_EOI 0x02
#define OCW3 0x08
#define CASCADE 2
#define SPURIOUS 7

void pic_reset(struct vm *vm) {
    for (int i = 0; i < 2; i++) {
        uint8_t lines = vm->pics[i].lines, elcr = vm->pics[i].elcr;

        memset(&vm->pics[i], 0, sizeof(vm->pics[i]));
        vm->pics[i].lines = lines;
        vm->pics[i].elcr = elcr;
        vm->pics[i].imr = 0xff; /* as the hypervisor: nothing before the guest has set them up */
    }
}

/* 0 is the highest priority; 8: nothing. */
static int priority(const struct pic *pic, uint8_t mask) {
    int p = 0;

    if (mask == 0)
        return 8;
    while (!(mask >> ((p + pic->priority_add) & 7) & 1))
        p++;
    return p;
}

/* The input to be served now, or -1. */
static int pending(const struct pic *pic) {
    int wanted = priority(pic, pic->irr & (uint8_t)~pic->imr);
    uint8_t in_service = pic->special_mask ? pic->isr & (uint8_t)~pic->imr : pic->isr;

    if (wanted == 8 || wanted >= priority(pic, in_service))
        return -1;
    return (wanted + pic->priority_add) & 7;
}

static void set_input(struct pic *pic, int input, bool high) {
    uint8_t bit = (uint8_t)(1u << input);

    if (high && ((pic->elcr & bit) || !(pic->lines & bit)))
        pic->irr |= bit;
    if (!high && (pic->elcr & bit))
        pic->irr &= (uint8_t)~bit;
    pic->lines = high ? pic->lines | bit : pic->lines & (uint8_t)~bit;
}

static void cascade(struct vm *vm) {
    bool high = pending(&vm->pics[1]) >= 0;

    if (!high)
        vm->pics[0].irr &= (uint8_t)~(1u << CASCADE);
    set_input(&vm->pics[0], CASCADE, high);
}

void pic_set_line(struct vm *vm, int pin, bool high) {
    if (pin == CASCADE)
        return;
    set_input(&vm->pics[pin / 8], pin % 8, high);
    cascade(vm);
}

bool pic_output(struct vm *vm) {
    return pending(&vm->pics[0]) >= 0;
}

static void serve(struct pic *pic, int input) {
    uint8_t bit = (uint8_t)(1u << input);

    if (pic->auto_eoi) {
        if (pic->rotate_on_auto_eoi)
            pic->priority_add = (uint8_t)((input + 1) & 7);
    } else {
        pic->isr |= bit;
    }
    if (!(pic->elcr & bit))
        pic->irr &= (uint8_t)~bit;
}

uint8_t pic_acknowledge(struct vm *vm) {
    struct pic *master = &vm->pics[0], *slave = &vm->pics[1];
    int input = pending(master), second;

    if (input < 0)
        return (uint8_t)(master->base + SPURIOUS);
    serve(master, input);
    if (input != CASCADE)
        return (uint8_t)(master->base + input);
    second = pending(slave);
    if (second >= 0)
        serve(slave, second);
    else
        second = SPURIOUS;
    cascade(vm);
    return (uint8_t)(slave->base + second);
}

bool pic_port(uint16_t port) {
    return port == 0x20 || port == 0x21 || port == 0xa0 || port == 0xa1 || port == 0x4d0 || port == 0x4d1;
}

static void end_of_interrupt(struct pic *pic, uint8_t value) {
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    int input = value & 7;

    if (!eoi) {
        if (rotate && specific)
            pic->priority_add = (uint8_t)((input + 1) & 7); /* set priority */
        else if (!specific)
            pic->rotate_on_auto_eoi = rotate;
        return;
    }
    if (!specific) {
        int highest = priority(pic, pic->isr);

        if (highest == 8)
            return;
        input = (highest + pic->priority_add) & 7;
    }
    pic->isr &= (uint8_t)~(1u << input);
    if (rotate)
        pic->priority_add = (uint8_t)((input + 1) & 7);
}

static void write_command(struct pic *pic, uint8_t value) {
    if (value & ICW1) {
        uint8_t lines = pic->lines, elcr = pic->elcr;

        memset(pic, 0, sizeof(*pic));
        pic->lines = lines;
        pic->elcr = elcr;
        pic->irr = lines & elcr;
        pic->init_step = 2;
        pic->needs_icw4 = value & ICW1_ICW4;
    } else if (value & OCW3) {
        pic->poll = value & 4;
        if (value & 2)
            pic->read_isr = value & 1;
        if (value & 0x40)
            pic->special_mask = value & 0x20;
    } else {
        end_of_interrupt(pic, value);
    }
}

static void write_data(struct pic *pic, uint8_t value) {
    switch (pic->init_step) {
    case 2:
        pic->base = value & 0xf8;
        pic->init_step = 3;
        break;
    case 3: /* which input is cascaded: wired */
        pic->init_step = pic->needs_icw4 ? 4 : 0;
        break;
    case 4:
        pic->auto_eoi = value & ICW4_AUTO_EOI;
        pic->init_step = 0;
        break;
    default:
        pic->imr = value;
    }
}

void pic_write(struct vm *vm, uint16_t port, uint8_t value) {
    struct pic *pic = &vm->pics[port >= 0xa0 && port != 0x4d0];

    if (port >= 0x4d0)
        pic->elcr = value & (port == 0x4d0 ? 0xf8 : 0xde); /* timer, keyboard, cascade, clock and FPU are edges */
    else if (port & 1)
        write_data(pic, value);
    else
        write_command(pic, value);
    cascade(vm);
}

uint8_t pic_read(struct vm *vm, uint16_t port) {
    struct pic *pic = &vm->pics[port >= 0xa0 && port != 0x4d0];
    int input;

    if (port >= 0x4d0)
        return pic->elcr;
    if (pic->poll) {
        pic->poll = false;
        input = pending(pic);
        if (input < 0)
            return SPURIOUS;
        serve(pic, input);
        cascade(vm);
        return (uint8_t)(0x80 | input);
    }
    if (port & 1)
        return pic->imr;
    return pic->read_isr ? pic->isr : pic->irr;
}
