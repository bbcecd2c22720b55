// Questions that a moving pointer asks: one is in flight, and of those asked meanwhile only the
// newest is asked next.

export interface Newest<Question> {
  /** Asks, or waits; null forgets what waits. */
  ask(question: Question | null): void;
  /** Whether an answer is on its way. */
  busy(): boolean;
}

export function newest<Question, Answer>(
  send: (question: Question) => Promise<Answer>,
  take: (answer: Answer, question: Question) => void,
  refused: (reason: Error, question: Question) => void,
): Newest<Question> {
  let inFlight = false;
  let waiting: Question | null = null;

  const next = () => {
    if (inFlight || waiting === null) return;
    const question = waiting;
    waiting = null;
    inFlight = true;
    const land = (tell: () => void) => {
      inFlight = false;
      try {
        tell();
      } finally {
        next();
      }
    };
    send(question).then(
      (answer) => land(() => take(answer, question)),
      (reason: Error) => land(() => refused(reason, question)),
    );
  };

  return {
    ask(question) {
      waiting = question;
      next();
    },
    busy: () => inFlight,
  };
}
