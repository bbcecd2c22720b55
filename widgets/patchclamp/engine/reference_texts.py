"""The small set of texts that means, spreads and peaks are taken over unless the user gives one.

Written for this package: sixteen registers, so that a mean is not one topic's mean.
"""

REFERENCE_TEXTS = (
    "The ferry left the harbour at seven, and by noon the island was only a thin line behind us.",
    "Heat the oil in a wide pan, add the onions, and stir until they turn soft and golden.",
    (
        "def area(width, height):\n    if width < 0 or height < 0:\n        raise "
        "ValueError('negative')\n    return width * height"
    ),
    (
        "In 1869 Dmitri Mendeleev arranged the known elements in a table and left gaps for "
        "those still missing."
    ),
    "“Are you coming with us?” she asked. He shook his head and closed the door without a word.",
    (
        "The tenant shall keep the premises clean and return the keys no later than the last "
        "day of the month."
    ),
    "If a train travels 120 kilometres in 90 minutes, its average speed is 80 kilometres per hour.",
    (
        "Le marché ouvre à huit heures, et les marchands installent leurs fruits sous les "
        "grands parasols."
    ),
    "Patients who took the new drug recovered two days earlier than those in the control group.",
    (
        "The striker turned past two defenders and put the ball into the corner with three "
        "minutes left."
    ),
    (
        "Dear Ms Okafor, thank you for your letter of 3 May; the repair has been booked for "
        "Thursday morning."
    ),
    "Shares of the company fell by four percent after it said that sales in Asia would be weaker.",
    "Snow lay on the roofs, and the river, black between its white banks, made no sound at all.",
    (
        "To reset the device, hold the power button for ten seconds until the green light "
        "begins to blink."
    ),
    (
        "Most frogs lay their eggs in water, where the tadpoles hatch, feed on algae and "
        "slowly grow legs."
    ),
    "Der Zug nach Hamburg fährt heute von Gleis neun ab und hat etwa zwanzig Minuten Verspätung.",
)
