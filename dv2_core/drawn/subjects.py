"""Twelve subjects, each a function that paints itself with a Brush; coordinates are pixels of the 256 picture."""

from __future__ import annotations

import math

from .brush import Brush, Colour, at, blob, both, either, ellipse, polygon, rounded, stroke, without

WHITE: Colour = (255, 255, 255)
INK: Colour = (34, 28, 40)


def toadstool(b: Brush) -> None:
    b.paint(blob(at("104,130 100,190 86,232 128,244 170,232 156,190 152,130")), (250, 240, 220), 18)
    b.paint(
        blob(at("92,152 128,142 164,152 172,172 148,168 128,178 108,168 84,172")),
        (255, 250, 238),
        8,
        0.3,
    )
    b.paint(ellipse(128, 140, 92, 22), (236, 214, 184), 8)
    cap = blob(at("22,138 30,84 72,30 128,12 184,30 226,84 234,138 184,150 128,154 72,150"))
    b.paint(cap, (222, 34, 38), 34, 0.35)
    for x, y, rx, ry, turn in (
        (128, 50, 25, 18, 0),
        (70, 82, 19, 22, 28),
        (184, 80, 20, 23, -26),
        (128, 106, 22, 19, 0),
        (46, 122, 13, 15, 20),
        (208, 122, 14, 16, -18),
        (92, 132, 13, 9, 0),
        (168, 128, 14, 10, 0),
    ):
        b.paint(both(ellipse(x, y, rx, ry, turn), cap), (255, 250, 244), 5, 0.2)
    b.glow(ellipse(84, 46, 24, 9, -34), WHITE, 0.5, 5, cap)


def robot(b: Brush) -> None:
    steel: Colour = (150, 162, 182)
    blue: Colour = (40, 108, 226)
    b.paint(rounded(124, 14, 132, 44, 4), steel, 4)
    b.paint(ellipse(128, 16, 11, 11), (255, 92, 72), 8)
    for x in (92, 140):
        b.paint(rounded(x, 200, x + 24, 234, 6), steel, 8)
        b.paint(rounded(x - 10, 224, x + 34, 246, 11), (30, 76, 176), 10)
    for x, turn in ((44, 1), (212, -1)):
        b.paint(stroke([(x + 22 * turn, 146), (x, 166), (x - 2 * turn, 186)], 18), steel, 8)
        b.paint(ellipse(x - 2 * turn, 196, 17, 17), blue, 12)
    b.paint(rounded(70, 126, 186, 214, 24), blue, 22)
    b.paint(rounded(94, 146, 162, 192, 12), (226, 236, 250), 6, 0.25)
    for x, colour in ((108, (255, 92, 72)), (128, (255, 200, 40)), (148, (60, 200, 110))):
        b.paint(ellipse(x, 162, 7, 7), colour, 5, 0.2)
    b.paint(rounded(102, 176, 154, 184, 4), (130, 150, 190), 2)
    for x in (44, 212):
        b.paint(rounded(x - 12, 66, x + 12, 100, 9), steel, 8)
    head = rounded(50, 38, 206, 132, 34)
    b.paint(head, (58, 132, 246), 26, 0.3)
    visor = rounded(66, 56, 190, 116, 26)
    b.paint(visor, (22, 28, 52), 8)
    for x in (100, 156):
        b.glow(ellipse(x, 82, 20, 20), (60, 220, 255), 0.35, 7, visor)
        b.paint(ellipse(x, 82, 14, 15), (96, 236, 255), 4)
        b.glow(ellipse(x - 4, 77, 4, 4), WHITE, 0.95, 0.6)
    b.paint(stroke([(114, 103), (128, 108), (142, 103)], 4), (96, 236, 255), 0)
    b.glow(polygon([(78, 60), (108, 58), (88, 112), (66, 112)]), WHITE, 0.14, 2, visor)


def fish(b: Brush) -> None:
    orange: Colour = (255, 124, 20)
    fin: Colour = (240, 92, 16)
    b.paint(blob(at("60,128 34,96 10,76 16,110 26,130 14,152 12,188 38,166")), fin, 14)
    b.paint(blob(at("84,84 96,44 136,34 168,50 186,82 136,92")), fin, 12)
    b.paint(blob(at("100,172 96,206 122,218 146,206 150,176")), fin, 10)
    body = blob(at("50,130 82,84 140,66 204,84 244,128 240,142 204,178 140,192 82,174"))
    b.paint(body, orange, 34, 0.25)
    for x, bend, w in ((172, 14, 26), (108, 12, 22), (66, 6, 12)):
        b.paint(both(stroke([(x, 50), (x - bend, 128), (x, 206)], w + 7), body), (60, 34, 40), 0)
        b.paint(both(stroke([(x, 50), (x - bend, 128), (x, 206)], w), body), (255, 250, 244), 4)
    b.glow(both(blob(at("60,168 140,176 226,162 200,196 100,200")), body), (120, 30, 30), 0.30, 12, body)
    b.paint(blob(at("136,140 118,138 94,150 96,168 120,168 138,156")), (255, 156, 50), 8, 0.3)
    b.eye(206, 116, 17)
    b.paint(stroke([(243, 142), (230, 150), (216, 148)], 4), (140, 44, 20), 0)
    b.glow(ellipse(150, 84, 44, 9, 4), WHITE, 0.4, 6, body)


def cactus(b: Brush) -> None:
    green: Colour = (52, 158, 78)
    arms = (
        stroke([(104, 142), (72, 140), (60, 122), (60, 92)], 32),
        stroke([(152, 124), (186, 122), (198, 104), (198, 70)], 32),
    )
    for arm in arms:
        b.paint(arm, green, 18)
    trunk = stroke([(128, 54), (128, 120), (128, 190)], 62)
    b.paint(trunk, (60, 172, 86), 28, 0.2)
    for x in (108, 128, 148):
        b.glow(stroke([(x, 34), (x, 120), (x, 190)], 3), (20, 92, 54), 0.45, 0.8, trunk)
    for i in range(6):
        for x in (98, 118, 138, 158):
            y = 48 + 24 * i + (12 if x in (118, 158) else 0)
            if y < 172:
                b.paint(polygon([(x - 3, y + 2), (x, y - 6), (x + 3, y + 2)]), (250, 248, 214), 0)
    for x, ys in ((60, (96, 116)), (198, (76, 98))):
        for y in ys:
            b.paint(polygon([(x - 3, y + 2), (x, y - 6), (x + 3, y + 2)]), (250, 248, 214), 0)
    for i in range(6):
        turn = 60 * i
        px, py = 128 + 13 * math.cos(math.radians(turn)), 24 + 11 * math.sin(math.radians(turn))
        b.paint(ellipse(px, py, 11, 8, turn), (255, 92, 160), 6, 0.15)
    b.paint(ellipse(128, 24, 8, 7), (255, 210, 60), 4, 0.2)
    b.paint(polygon([(76, 186), (180, 186), (166, 246), (90, 246)]), (206, 98, 56), 20, 0.2)
    b.paint(rounded(66, 172, 190, 198, 8), (224, 116, 68), 10, 0.35)


def duck(b: Brush) -> None:
    yellow: Colour = (255, 206, 24)
    body = blob(at("24,128 18,160 40,210 96,236 164,232 212,200 220,156 192,132 150,140 96,152 56,140"))
    b.paint(body, yellow, 34)
    head = ellipse(158, 82, 60, 58)
    b.paint(head, (255, 214, 40), 34, 0.2)
    b.paint(blob(at("206,88 232,82 250,92 244,106 222,114 202,108")), (255, 128, 20), 10, 0.2)
    b.glow(stroke([(206, 100), (228, 98), (246, 96)], 2.5), (150, 60, 10), 0.8, 0.5)
    b.paint(blob(at("66,168 104,160 146,170 150,190 122,210 84,206 56,188")), (255, 192, 10), 16, 0.3)
    b.paint(ellipse(176, 70, 11, 14), INK, 4)
    b.glow(ellipse(173, 64, 4, 5), WHITE, 1.0, 0.4)
    b.glow(ellipse(186, 98, 12, 8), (255, 130, 60), 0.45, 4, head)
    b.glow(ellipse(134, 46, 22, 9, -28), WHITE, 0.65, 5, head)
    b.paint(blob(at("150,28 146,8 158,14 170,6 166,28")), yellow, 6)


def balloon(b: Brush) -> None:
    rope: Colour = (120, 84, 60)
    for x in (84, 112, 144, 172):
        b.paint(stroke([(x, 158), ((x + 128) / 2 + (x - 128) * 0.05, 206)], 2.6), rope, 0)
    bag = blob(at("128,8 184,24 214,76 204,124 172,164 144,180 112,180 84,164 52,124 42,76 72,24"))
    b.paint(bag, (128, 58, 196), 40)
    for width, colour in ((62, (246, 190, 60)), (38, (150, 78, 220)), (14, (246, 190, 60))):
        b.glow(both(ellipse(128, 96, width, 96), bag), colour, 1.0, 0)
    for width in (14, 38, 62):
        edge = without(ellipse(128, 96, width + 1, 97), ellipse(128, 96, width - 1, 95))
        b.glow(both(edge, bag), (70, 20, 110), 0.35, 0.6, bag)
    b.glow(ellipse(186, 130, 50, 70, 30), (40, 0, 80), 0.45, 20, bag)
    b.glow(ellipse(82, 56, 18, 34, 24), WHITE, 0.6, 9, bag)
    b.paint(blob(at("106,176 128,180 150,176 146,188 128,190 110,188")), (92, 36, 150), 5)
    basket = rounded(100, 204, 156, 248, 9)
    b.paint(basket, (186, 122, 62), 12)
    for y in (218, 229, 240):
        b.glow(stroke([(100, y), (156, y)], 2), (110, 62, 26), 0.6, 0.4, basket)
    for x in (110, 122, 134, 146):
        b.glow(stroke([(x, 210), (x, 250)], 2), (110, 62, 26), 0.4, 0.4, basket)
    b.paint(rounded(95, 200, 161, 213, 6), (212, 150, 84), 6, 0.25)


def teapot(b: Brush) -> None:
    teal: Colour = (30, 168, 166)
    handle = without(ellipse(52, 148, 44, 48), ellipse(54, 148, 27, 31))
    b.paint(handle, teal, 10)
    b.paint(
        blob(at("176,178 204,164 214,120 226,98 248,96 246,106 238,118 234,168 206,206 180,212")),
        teal,
        14,
    )
    b.paint(rounded(86, 222, 172, 238, 8), (22, 128, 132), 7)
    body = ellipse(128, 158, 82, 74)
    b.paint(body, (38, 184, 180), 40, 0.25)
    b.paint(both(stroke([(40, 118), (128, 132), (216, 118)], 9), body), (252, 246, 226), 3)
    for i in range(5):
        turn = 72 * i - 90
        x, y = 128 + 17 * math.cos(math.radians(turn)), 178 + 17 * math.sin(math.radians(turn))
        b.paint(ellipse(x, y, 13, 10, turn), (255, 252, 244), 5, 0.12)
    b.paint(ellipse(128, 178, 9, 9), (255, 190, 50), 5, 0.15)
    for x in (76, 180):
        b.paint(ellipse(x, 170, 7, 7), (255, 252, 244), 4, 0.12)
    b.paint(blob(at("76,94 92,68 128,58 164,68 180,94 128,102")), teal, 18, 0.3)
    b.paint(ellipse(128, 48, 16, 15), (255, 190, 50), 11, 0.2)
    b.glow(ellipse(88, 130, 13, 22, 32), WHITE, 0.65, 6, body)


def rocket(b: Brush) -> None:
    red: Colour = (228, 44, 56)
    b.paint(blob(at("104,196 96,222 112,216 128,252 144,216 160,222 152,196")), (255, 130, 20), 8)
    b.paint(blob(at("114,198 112,214 128,236 144,214 142,198")), (255, 226, 90), 6)
    for turn in (1, -1):
        fin = [(128 + x * turn, y) for x, y in at("34,134 66,168 72,216 48,196 28,190")]
        b.paint(blob(fin), red, 12)
    b.paint(rounded(102, 184, 154, 204, 6), (96, 104, 124), 8)
    hull = blob(at("128,4 152,34 168,84 170,130 156,188 128,194 100,188 86,130 88,84 104,34"))
    b.paint(hull, (236, 240, 248), 26, 0.25)
    b.paint(both(hull, polygon(at("60,0 196,0 196,60 128,68 60,60"))), red, 18)
    b.paint(both(hull, polygon(at("60,158 128,166 196,158 196,174 128,182 60,174"))), (40, 84, 190), 6)
    b.glow(ellipse(166, 110, 20, 90), (60, 60, 120), 0.35, 10, hull)
    b.paint(ellipse(128, 104, 28, 28), (150, 160, 180), 6, 0.25)
    glass = ellipse(128, 104, 20, 20)
    b.paint(glass, (66, 178, 240), 8)
    b.glow(ellipse(121, 96, 8, 5, -40), WHITE, 0.9, 1, glass)
    b.paint(blob(at("123,140 128,132 133,140 134,206 128,222 122,206")), red, 5, 0.25)
    b.glow(ellipse(106, 80, 5, 40, 5), WHITE, 0.8, 4, hull)


def ladybird(b: Brush) -> None:
    for turn in (1, -1):
        for y, reach, drop in ((104, 100, -24), (150, 108, 4), (192, 96, 30)):
            foot, knee = 128 + reach * turn, 128 + (reach - 12) * turn
            b.paint(stroke([(128 + 66 * turn, y), (knee, y + drop * 0.4), (foot, y + drop)], 11), INK, 4)
        b.paint(stroke([(128 + 18 * turn, 46), (128 + 30 * turn, 24), (128 + 48 * turn, 16)], 6), INK, 2)
        b.paint(ellipse(128 + 50 * turn, 16, 8, 8), INK, 5)
    b.paint(ellipse(128, 64, 48, 36), (40, 34, 46), 18)
    for turn in (1, -1):
        b.paint(ellipse(128 + 28 * turn, 54, 11, 10), (255, 252, 244), 4)
        b.paint(ellipse(128 + 29 * turn, 52, 5.5, 5.5), INK, 0)
    shell = ellipse(128, 156, 90, 88)
    b.paint(shell, (232, 38, 30), 44, 0.3)
    b.paint(both(polygon([(125, 60), (131, 60), (134, 250), (122, 250)]), shell), INK, 0)
    for x, y, rx, ry in ((84, 112, 17, 17), (62, 160, 15, 18), (98, 166, 16, 16), (86, 214, 15, 14)):
        for cx in (x, 256 - x):
            b.paint(both(ellipse(cx, y, rx, ry), shell), (38, 30, 40), 6)
    b.glow(ellipse(92, 92, 26, 11, -26), WHITE, 0.6, 7, shell)


def boat(b: Brush) -> None:
    b.paint(rounded(122, 14, 130, 196, 4), (150, 100, 56), 4)
    b.paint(polygon([(130, 12), (164, 22), (130, 34)]), (232, 52, 60), 5)
    main = polygon([*((136 + 90 * math.sin(t * math.pi / 40), 40 + 138 * t / 20) for t in range(21)), (136, 178)])
    b.paint(main, (240, 244, 252), 16)
    for top in (86, 132):
        b.paint(both(main, polygon([(130, top), (240, top + 4), (240, top + 24), (130, top + 20)])), (46, 124, 220), 4)
    jib = polygon([*((118 - 80 * math.sin(t * math.pi / 40), 54 + 124 * t / 20) for t in range(21)), (118, 178)])
    b.paint(jib, (255, 196, 60), 16)
    hull = blob(at("16,192 60,198 128,200 196,198 244,188 228,218 200,242 128,246 62,242 32,220"))
    b.paint(hull, (176, 66, 44), 22, 0.2)
    b.paint(both(hull, polygon(at("0,180 256,176 256,204 128,212 0,208"))), (250, 244, 230), 7)
    b.glow(stroke([(40, 226), (128, 232), (220, 222)], 3), (96, 26, 20), 0.6, 0.5, hull)
    for x in (84, 128, 172):
        b.paint(ellipse(x, 222, 8, 8), (250, 214, 120), 3, 0.2)
        b.paint(ellipse(x, 222, 5, 5), (60, 80, 120), 2)


def watermelon(b: Brush) -> None:
    def wedge(radius: float) -> list[tuple[float, float]]:
        turns = [math.radians(180 * i / 60) for i in range(61)]
        return [(128 + radius * math.cos(a), 84 + radius * 1.18 * math.sin(a)) for a in turns]

    b.paint(polygon(wedge(120)), (36, 132, 60), 14)
    for i in range(9):
        a = math.radians(18 + 18 * i)
        dark = stroke([(128 + r * math.cos(a), 84 + r * 1.18 * math.sin(a)) for r in (104, 112, 120)], 9)
        b.glow(dark, (14, 84, 40), 0.8, 1.2, polygon(wedge(120)))
    b.paint(polygon(wedge(105)), (224, 244, 190), 5)
    flesh = polygon(wedge(97))
    b.paint(flesh, (244, 62, 76), 22)
    b.glow(ellipse(128, 84, 60, 36), (255, 130, 130), 0.5, 16, flesh)
    for x, y, turn in (
        (128, 118, 90),
        (92, 112, 60),
        (164, 112, 120),
        (66, 134, 40),
        (190, 134, 140),
        (108, 150, 75),
        (148, 150, 105),
        (82, 168, 55),
        (174, 168, 125),
        (128, 180, 90),
    ):
        b.paint(ellipse(x, y, 8, 4.6, turn), (42, 26, 28), 2, 0.2)
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        b.glow(ellipse(x - 2 * c - 1, y - 2 * s - 1, 2, 1.2, turn), WHITE, 0.7, 0.3)
    b.glow(stroke([(40, 88), (128, 87), (216, 88)], 4), WHITE, 0.45, 1.5, flesh)


def owl(b: Brush) -> None:
    brown: Colour = (146, 92, 54)
    for x in (100, 156):
        for dx in (-12, 0, 12):
            b.paint(ellipse(x + dx, 240, 8, 11), (255, 164, 40), 6)
    for turn in (1, -1):
        tuft = [(128 + x * turn, y) for x, y in at("34,58 52,34 76,14 86,22 84,74")]
        b.paint(blob(tuft), (112, 66, 38), 10)
    body = blob(at("128,36 190,46 214,96 212,170 180,228 128,240 76,228 44,170 42,96 66,46"))
    b.paint(body, brown, 38)
    belly = ellipse(128, 182, 54, 52)
    b.paint(both(belly, body), (242, 214, 168), 16)
    for row in range(4):
        for i in range(5 - row % 2):
            x, y = 128 + (i - (4 - row % 2) / 2) * 22, 156 + row * 20
            scallop = without(ellipse(x, y, 10, 9), ellipse(x, y - 5, 11, 9))
            b.glow(both(scallop, belly), (176, 116, 66), 0.85, 0.4, belly)
    for turn in (1, -1):
        wing = blob([(128 + x * turn, y) for x, y in at("82,112 98,150 88,204 62,222 52,170 60,124")])
        b.paint(wing, (112, 66, 38), 16, 0.25)
        for y in (152, 174, 196):
            b.glow(
                stroke([(128 + 58 * turn, y), (128 + 74 * turn, y + 8), (128 + 92 * turn, y - 2)], 3),
                (70, 36, 18),
                0.5,
                0.7,
                wing,
            )
    b.paint(either(ellipse(92, 96, 46, 46), ellipse(164, 96, 46, 46)), (248, 226, 186), 14, 0.25)
    for x in (92, 164):
        b.paint(ellipse(x, 96, 32, 32), (255, 184, 30), 8, 0.15)
        b.paint(ellipse(x, 96, 20, 21), INK, 4)
        b.glow(ellipse(x - 8, 87, 7, 7), WHITE, 1.0, 0.5)
        b.glow(ellipse(x + 7, 105, 3, 3), WHITE, 0.7, 0.5)
    b.paint(blob([(116, 114), (128, 108), (140, 114), (128, 142)]), (255, 146, 30), 8, 0.3)


SUBJECTS = (toadstool, robot, fish, cactus, duck, balloon, teapot, rocket, ladybird, boat, watermelon, owl)
