// Stochastic volatility with standardised innovations of the log variance.
data {
  int<lower=1> T;
  vector[T] y;
}
parameters {
  real mu;
  real<lower=-1, upper=1> phi;
  real<lower=0> sigma;
  vector[T] h_std;
}
model {
  vector[T] h = sigma * h_std;
  h[1] /= sqrt(1 - square(phi));
  for (t in 2 : T) {
    h[t] += phi * h[t - 1];
  }
  mu ~ cauchy(0, 10);
  sigma ~ cauchy(0, 5);
  h_std ~ std_normal();
  y ~ normal(0, exp((mu + h) / 2));
}
